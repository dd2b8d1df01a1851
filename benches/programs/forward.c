/* A preload that only forwards malloc, calloc, realloc and free. No preload can cost less. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

static void *(*real_malloc)(size_t);
static void *(*real_calloc)(size_t, size_t);
static void *(*real_realloc)(void *, size_t);
static void (*real_free)(void *);

/* dlsym may call calloc before it returns. These calls get this memory, which is never reused. */
static char arena[4096];
static size_t used;

static void *from_arena(size_t bytes) {
    void *given = arena + used;
    used += (bytes + 15) & ~(size_t)15;
    return used <= sizeof arena ? given : NULL;
}

static int in_arena(void *p) { return (char *)p >= arena && (char *)p < arena + sizeof arena; }

__attribute__((constructor)) static void start(void) {
    real_malloc = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
    real_realloc = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc");
    real_free = (void (*)(void *))dlsym(RTLD_NEXT, "free");
    real_calloc = (void *(*)(size_t, size_t))dlsym(RTLD_NEXT, "calloc");
}

void *malloc(size_t size) { return __builtin_expect(!real_malloc, 0) ? from_arena(size) : real_malloc(size); }

void *calloc(size_t count, size_t size) {
    return __builtin_expect(!real_calloc, 0) ? from_arena(count * size) : real_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    if (__builtin_expect(in_arena(old), 0)) {
        void *moved = real_malloc(size);
        size_t room = (size_t)(arena + sizeof arena - (char *)old);
        return moved ? memcpy(moved, old, size < room ? size : room) : NULL;
    }
    return real_realloc(old, size);
}

void free(void *allocation) {
    if (__builtin_expect(in_arena(allocation) || !real_free, 0)) return;
    real_free(allocation);
}
