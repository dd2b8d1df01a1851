// A program with musl. musl's posix_memalign and memalign call aligned_alloc, and edleak replaces all three.
// edleak must still count each allocation only once.
//#Compiler: musl-gcc
//#Trace: by_malloc allocs=100 allocated_bytes=10000 frees=100
//#Trace: by_calloc allocs=100 allocated_bytes=12000 frees=100
//#Trace: by_realloc allocs=200 allocated_bytes=60000 frees=200
//#Trace: by_posix_memalign allocs=100 allocated_bytes=10000 frees=100
//#Trace: by_memalign allocs=100 allocated_bytes=10000 frees=100
//#Trace: by_aligned_alloc allocs=100 allocated_bytes=12800 frees=100
#include "check.h"
#include <malloc.h>
#include <pthread.h>

NOINLINE void *by_malloc(void) { return keep(malloc(100)); }
NOINLINE void *by_calloc(void) { return keep(calloc(3, 40)); }
NOINLINE void *by_realloc(void *p, size_t n) { return keep(realloc(p, n)); }
NOINLINE void *by_posix_memalign(void) {
    void *p = NULL;
    CHECK(posix_memalign(&p, 64, 100) == 0);
    return keep(p);
}
NOINLINE void *by_memalign(void) { return keep(memalign(64, 100)); }
NOINLINE void *by_aligned_alloc(void) { return keep(aligned_alloc(64, 128)); }

static void *thread(void *unused) {
    exercise(1000);
    return unused;
}

int main(void) {
    for (int i = 0; i < 100; i++) {
        free(by_malloc());
        free(by_calloc());
        free(by_realloc(by_realloc(NULL, 200), 400));
        free(by_posix_memalign());
        free(by_memalign());
        free(by_aligned_alloc());
    }
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, thread, NULL) == 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    printf("ok\n");
    return 8;
}
