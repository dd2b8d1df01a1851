// `hidden_threads [private]`: groups of threads, one after another, allocate, free and end. With `private`,
// /proc with hidepid=2 hides the process from its own user, because it is not dumpable. Prints the number of
// allocations in `site_a`; all are freed. tests/tests/conditions/hidden.rs records this program.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define EACH 100000
#define LONG_LIVED 8
#define ROUNDS 20
#define SHORT_LIVED 4

// Keeps the compiler from turning a call of malloc into a jump, so that edleak sees the right caller.
static void *keep(void *p) {
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

__attribute__((noinline)) static void *site_a(void) { return keep(malloc(100)); }

static void *work(void *argument) {
    for (int i = 0; i < EACH; i++) {
        void *volatile p = site_a();
        free(p);
        if (i % 20000 == 0) usleep(1000);
    }
    return argument;
}

static void *come_and_go(void *argument) {
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t threads[SHORT_LIVED];
        usleep(5000);
        for (int i = 0; i < SHORT_LIVED; i++) pthread_create(threads + i, NULL, work, NULL);
        for (int i = 0; i < SHORT_LIVED; i++) pthread_join(threads[i], NULL);
    }
    return argument;
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "private")) prctl(PR_SET_DUMPABLE, 0);
    pthread_t threads[LONG_LIVED], others;
    for (int i = 0; i < LONG_LIVED; i++) pthread_create(threads + i, NULL, work, NULL);
    pthread_create(&others, NULL, come_and_go, NULL);
    for (int i = 0; i < LONG_LIVED; i++) pthread_join(threads[i], NULL);
    pthread_join(others, NULL);
    printf("%d\n", (LONG_LIVED + ROUNDS * SHORT_LIVED) * EACH);
}
