// Cancels threads while they allocate and wait. The cleanup handlers of the cancelled threads free memory.
//#Trace: in_thread allocs=100 allocated_bytes=10000 frees=100
#include "check.h"
#include <pthread.h>

NOINLINE void *in_thread(void) { return keep(malloc(100)); }
static void *thread(void *ready) {
    void *p = in_thread();
    pthread_cleanup_push(free, p);
    exercise(100);
    pthread_barrier_wait(ready);
    for (;;) {
        exercise(10);
        pthread_testcancel();
    }
    pthread_cleanup_pop(1);
    return NULL;
}
int main(void) {
    for (int i = 0; i < 100; i++) {
        pthread_barrier_t ready;
        pthread_barrier_init(&ready, NULL, 2);
        pthread_t t;
        CHECK(pthread_create(&t, NULL, thread, &ready) == 0);
        pthread_barrier_wait(&ready);
        CHECK(pthread_cancel(t) == 0);
        void *result;
        CHECK(pthread_join(t, &result) == 0 && result == PTHREAD_CANCELED);
        pthread_barrier_destroy(&ready);
    }
    say("ok\n");
}
