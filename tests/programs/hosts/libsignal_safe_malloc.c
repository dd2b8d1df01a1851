// An allocator that is safe in a signal handler: malloc only advances a pointer, and free does nothing.
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

static char *_Atomic arena;
static _Atomic size_t used;
enum { HEADER = 16 };
static const size_t CAPACITY = (size_t)4 << 30;

void *malloc(size_t size) {
    char *base = arena;
    if (!base) {
        char *mapped =
            mmap(NULL, CAPACITY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mapped == MAP_FAILED) return NULL;
        if (atomic_compare_exchange_strong(&arena, &base, mapped)) base = mapped;
        else munmap(mapped, CAPACITY);
    }
    size_t whole = ((size + 31) & ~(size_t)31) + 32;
    size_t at = atomic_fetch_add(&used, whole);
    if (size > CAPACITY || at + whole > CAPACITY) {
        errno = ENOMEM;
        return NULL;
    }
    memcpy(base + at + 16, &size, sizeof size);
    return base + at + 32;
}
void free(void *p) { (void)p; }
void *calloc(size_t n, size_t m) {
    size_t size;
    if (__builtin_mul_overflow(n, m, &size)) return NULL;
    return malloc(size); // fresh memory is zero
}
void *realloc(void *old, size_t size) {
    void *p = malloc(size);
    if (p && old) {
        size_t before;
        memcpy(&before, (char *)old - HEADER, sizeof before);
        memcpy(p, old, before < size ? before : size);
    }
    return p;
}
