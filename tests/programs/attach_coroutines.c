// Runs two threads with 32 coroutines (makecontext) each. The stacks of the coroutines are allocated blocks.
// Every coroutine allocates, yields in the middle of its work, and frees.
//
//   attach_coroutines
//
// Reads standard input to its end, then prints `sound`. Ends with SIGABRT if the content of a block changed.
//
//#Build: -O1 -pthread
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

enum { COROUTINES = 32, STACK = 64 << 10 };

static volatile int is_over = 0;

struct scheduler {
    ucontext_t main, coroutines[COROUTINES];
    char *stacks[COROUTINES];
    int has_ended[COROUTINES];
};

static void yield(struct scheduler *s, int me) {
    if (swapcontext(&s->coroutines[me], &s->main)) abort();
}

// The pointer is passed in two halves, because makecontext passes only arguments of type int.
static void body(unsigned low, unsigned high, int me) {
    struct scheduler *s = (struct scheduler *)((uintptr_t)low | (uintptr_t)high << 32);
    for (unsigned n = (unsigned)me; !is_over; n++) {
        size_t size = 16 + n * 37 % 3000;
        unsigned char *p = malloc(size);
        if (!p) abort();
        memset(p, (unsigned char)n, size);
        yield(s, me);
        p = realloc(p, size * 2);
        if (!p) abort();
        for (size_t i = 0; i < size; i++) if (p[i] != (unsigned char)n) abort();
        yield(s, me);
        unsigned char *zeros = calloc(7, 11);
        if (!zeros) abort();
        for (int i = 0; i < 77; i++) if (zeros[i]) abort();
        free(zeros), free(p);
    }
    s->has_ended[me] = 1;
}

static void *schedule(void *unused) {
    struct scheduler *s = calloc(1, sizeof *s);
    if (!s) abort();
    for (int i = 0; i < COROUTINES; i++) {
        if (!(s->stacks[i] = malloc(STACK)) || getcontext(&s->coroutines[i])) abort();
        s->coroutines[i].uc_stack.ss_sp = s->stacks[i];
        s->coroutines[i].uc_stack.ss_size = STACK;
        s->coroutines[i].uc_link = &s->main;
        makecontext(&s->coroutines[i], (void (*)(void))body, 3, (unsigned)(uintptr_t)s,
                    (unsigned)((uintptr_t)s >> 32), i);
    }
    for (int running = COROUTINES; running > 0;) {
        running = 0;
        for (int i = 0; i < COROUTINES; i++) {
            if (s->has_ended[i]) continue;
            running++;
            if (swapcontext(&s->main, &s->coroutines[i])) abort();
        }
    }
    for (int i = 0; i < COROUTINES; i++) free(s->stacks[i]);
    free(s);
    return unused;
}

int main(void) {
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, schedule, NULL);
    printf("running\n");
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0) {
    }
    is_over = 1;
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    printf("sound\n");
    return 0;
}
