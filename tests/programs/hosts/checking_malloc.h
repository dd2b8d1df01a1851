// An allocator that ends the program if free gets an unknown address. Like many small allocators, it has no
// reallocarray and no operator new. If a library provides these two, they must call this allocator.
#pragma once
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#define QUIETLY noexcept
#else
#define QUIETLY
#endif

struct CheckedHeader {
    size_t size;
    size_t magic;
};
#define CHECKED_MAGIC 0x600dc0deu
static char checked_pool[64 << 20] __attribute__((aligned(4096)));
static size_t checked_used;

static void *checked_get(size_t align, size_t size) {
    if (align < 16) align = 16;
    size_t whole = size + align + sizeof(struct CheckedHeader) + 16;
    size_t at = __atomic_fetch_add(&checked_used, whole, __ATOMIC_RELAXED);
    if (size > sizeof checked_pool || at + whole > sizeof checked_pool) {
        errno = ENOMEM;
        return NULL;
    }
    uintptr_t from = (uintptr_t)checked_pool + at + sizeof(struct CheckedHeader);
    struct CheckedHeader *header = (struct CheckedHeader *)((from + align - 1) & ~(align - 1)) - 1;
    header->size = size;
    header->magic = CHECKED_MAGIC;
    return header + 1;
}

static struct CheckedHeader *checked_header(void *p) {
    struct CheckedHeader *header = (struct CheckedHeader *)p - 1;
    if ((char *)p < checked_pool || (char *)p >= checked_pool + sizeof checked_pool ||
        header->magic != CHECKED_MAGIC)
        __builtin_trap();
    return header;
}

void *malloc(size_t size) QUIETLY { return checked_get(16, size); }
void free(void *p) QUIETLY {
    if (p) checked_header(p)->magic = 0;
}
void *calloc(size_t count, size_t size) QUIETLY { return checked_get(16, count * size); }
void *realloc(void *old, size_t size) QUIETLY {
    void *made = checked_get(16, size);
    if (made && old) {
        size_t before = checked_header(old)->size;
        memcpy(made, old, before < size ? before : size);
        free(old);
    }
    return made;
}
void *aligned_alloc(size_t align, size_t size) QUIETLY { return checked_get(align, size); }
void *memalign(size_t align, size_t size) QUIETLY { return checked_get(align, size); }
int posix_memalign(void **out, size_t align, size_t size) QUIETLY {
    *out = checked_get(align, size);
    return *out ? 0 : ENOMEM;
}

#ifdef __cplusplus
}
#endif
