// Size 0, too large sizes, realloc to size 0, aligned_alloc, and errno: all must behave as without edleak.
//#Build: -Wno-alloc-size-larger-than -Wno-unused-result
//#Trace: zero allocs=100 allocated_bytes=0 frees=100
//#Trace: resized allocs=100 allocated_bytes=1000 frees=100
#include "check.h"
#include <malloc.h>
#include <stdint.h>

NOINLINE void *zero(void) { return keep(malloc(0)); }
NOINLINE void *resized(void *p, size_t n) { return keep(realloc(p, n)); }

int main(void) {
    static char held[1];
    static volatile size_t huge = SIZE_MAX - 8;
    for (int i = 0; i < 100; i++) {
        void *p = zero(), *q = keep(malloc(0));
        CHECK(p && q && p != q);
        free(p), free(q);
        p = resized(NULL, 10);
        CHECK(p);
        errno = 5;
        void *nothing = resized(p, 0);
        printf("realloc(p, 0) is %s, errno %d\n", nothing ? "a block" : "NULL", errno);
        errno = 0;
        CHECK(!keep(malloc(huge)) && errno == ENOMEM);
        errno = 0;
        CHECK(!keep(calloc(huge / 2, 3)) && errno == ENOMEM);
        void *aligned = keep(aligned_alloc(64, 100));
        printf("aligned_alloc(64, 100) is %s\n", aligned ? "a block" : "NULL");
        free(aligned);
        errno = 0;
        aligned = keep(aligned_alloc(24, 100));
        printf("aligned_alloc(24, 100) is %s, errno %d\n", aligned ? "a block" : "NULL", errno);
        free(aligned);
        aligned = keep(memalign(24, 100));
        printf("memalign(24, 100) is %s, a multiple of 32: %d\n", aligned ? "a block" : "NULL",
               (uintptr_t)aligned % 32 == 0);
        free(aligned);
        void *untouched = held;
        errno = 5;
        int result = posix_memalign(&untouched, 7, 100);
        printf("posix_memalign(7) is %d, errno %d, result untouched %d\n", result, errno, untouched == held);
        errno = 5;
        free(NULL);
        CHECK(errno == 5);
        CHECK(malloc_usable_size(NULL) == 0);
        p = keep(malloc(100));
        printf("malloc_usable_size of 100 is %zu\n", malloc_usable_size(p));
        free(p);
    }
    printf("ok\n");
}
