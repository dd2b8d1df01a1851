// A shared library with a small allocator of its own that uses names of jemalloc. late_library loads it.
//
//#Build: -O1
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

__attribute__((noinline)) void *je_malloc(size_t size) {
    static char *at, *end;
    if (size > (size_t)(end - at)) {
        at = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) abort();
        end = at + (1 << 20);
    }
    void *block = at;
    at += size;
    return block;
}

__attribute__((noinline)) void je_free(void *block) {
    if (block == (void *)1) abort();
}
