// A shared library with its own jemalloc under the prefix `je_`. No other module can call this jemalloc.
//
//#Build: -l:libjemalloc_pic.a -ldl -lm -pthread -lstdc++
//#Build: -Wl,--exclude-libs,ALL -Wl,--defsym=je_malloc=malloc -Wl,--defsym=je_free=free
#include <stdlib.h>
#include <jemalloc/jemalloc.h>

// KEEP keeps the compiler from turning the call before it into a jump. So the caller of the allocator is
// always a function of this file.
#define KEEP(p) __asm__ volatile("" : "+r"(p) : : "memory")

void *private_malloc(size_t size) { void *p = malloc(size); KEEP(p); return p; }
void *private_calloc(size_t count, size_t size) { void *p = calloc(count, size); KEEP(p); return p; }
void *private_realloc(void *old, size_t size) { void *p = realloc(old, size); KEEP(p); return p; }
void *private_aligned(size_t align, size_t size) {
    void *p = mallocx(size, MALLOCX_ALIGN(align));
    KEEP(p);
    return p;
}
void private_free(void *allocation) { free(allocation); }
void private_free_sized(void *allocation, size_t size) { sdallocx(allocation, size, 0); }
