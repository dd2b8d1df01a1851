// A test program that makes stacks of many kinds; the first argument chooses the kind. Kinds: recursion with
// many saved registers, variable-length frames, a callback through libc, a thread, a signal handler on the
// interrupted stack.
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

void capture(void);
volatile uint64_t sink;

// So many values are in use before and after the call that the compiler must push every callee-saved
// register, including rbp.
__attribute__((noinline)) static uint64_t recurse(int depth, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                                                  void (*then)(void)) {
    uint64_t e = a * b + sink, f = c ^ d, g = a + d;
    if (depth == 0) then();
    else sink += recurse(depth - 1, e, f, g, a ^ b, then);
    return sink + a + b * c + d + e * f + g;
}

__attribute__((noinline)) static void variable(int bytes, void (*then)(void)) {
    char room[bytes]; // needs a frame pointer with all compiler flags
    memset(room, 1, bytes);
    recurse(3, room[0], bytes, 3, 4, then);
    sink += room[bytes / 2];
}

__attribute__((noinline)) static void deep(void) { variable(1000, capture), sink++; }

static int compare(const void *left, const void *right) {
    recurse(2, *(const int *)left, *(const int *)right, 7, 8, deep);
    return 0;
}

static void *thread(void *unused) {
    recurse(20, 1, 2, 3, 4, deep);
    return unused;
}

static void on_signal(int number, siginfo_t *info, void *context) {
    (void)number, (void)info, (void)context;
    recurse(2, 5, 6, 7, 8, deep);
}

// The signal interrupts a function that calls no other function, so in this function, rsp still points at the
// return address. No call instruction leads to the signal handler.
__attribute__((noinline)) static void leaf(void) {
    __asm__ volatile("ud2");
    sink++;
}

static void interrupted(void) { leaf(), sink++; }

int main(int count, char **words) {
    const char *kind = count > 1 ? words[1] : "";
    if (!strcmp(kind, "recursion")) {
        recurse(30, 1, 2, 3, 4, deep);
    } else if (!strcmp(kind, "callback")) {
        int items[] = {3, 1, 2};
        qsort(items, 3, sizeof *items, compare);
    } else if (!strcmp(kind, "thread")) {
        pthread_t id;
        pthread_create(&id, NULL, thread, NULL);
        pthread_join(id, NULL);
    } else if (!strcmp(kind, "signal")) {
        struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
        sigaction(SIGILL, &action, NULL);
        recurse(4, 1, 2, 3, 4, interrupted);
    }
    return 1; // capture() does not return
}
