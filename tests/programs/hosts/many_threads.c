// Starts 2,000 short threads, 50 at a time. Each thread leaves an allocation that a later thread frees.
//#Trace: in_thread allocs=2000 allocated_bytes=200000 frees=2000
#include "check.h"
#include <pthread.h>

static void *left[50];
NOINLINE void *in_thread(void) { return keep(malloc(100)); }
static void *thread(void *slot) {
    exercise(20);
    free(*(void **)slot);
    *(void **)slot = in_thread();
    return NULL;
}

int main(void) {
    for (int generation = 0; generation < 40; generation++) {
        pthread_t threads[50];
        for (int i = 0; i < 50; i++) CHECK(pthread_create(&threads[i], NULL, thread, &left[i]) == 0);
        for (int i = 0; i < 50; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    }
    for (int i = 0; i < 50; i++) free(left[i]);
    say("ok\n");
}
