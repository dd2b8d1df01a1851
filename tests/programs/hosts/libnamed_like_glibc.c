// An allocator with names of glibc: its malloc is also called `__libc_malloc`. Small blocks are 16 bytes
// apart, and operator new does not call malloc. A thread reuses its freed blocks at once. The loader also
// loads this library into edleak-record.
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { CLASSES = 256, LARGEST = 16 * CLASSES };
static char small_pool[CLASSES][256 << 10] __attribute__((aligned(4096)));
static size_t small_used[CLASSES];
static __thread void *freed[CLASSES] __attribute__((tls_model("initial-exec")));
static char large_pool[64 << 20] __attribute__((aligned(4096)));
static size_t large_used;

static int class_of(const void *p) {
    ptrdiff_t at = (const char *)p - (const char *)small_pool;
    return at >= 0 && at < (ptrdiff_t)sizeof small_pool ? (int)(at / (ptrdiff_t)sizeof small_pool[0]) : -1;
}

static void *get(size_t align, size_t size) {
    size_t class = size ? (size - 1) / 16 : 0;
    if (class < CLASSES && align <= 16) {
        void **again = freed[class];
        if (again) {
            freed[class] = *again;
            return again;
        }
        size_t bytes = 16 * (class + 1);
        size_t at = __atomic_fetch_add(&small_used[class], bytes, __ATOMIC_RELAXED);
        if (at + bytes <= sizeof small_pool[0]) return small_pool[class] + at;
    }
    if (align < 16) align = 16;
    size_t whole = size + align + 32;
    size_t at = size <= sizeof large_pool
                    ? __atomic_fetch_add(&large_used, whole & ~(size_t)15, __ATOMIC_RELAXED)
                    : sizeof large_pool;
    if (at + whole > sizeof large_pool) {
        errno = ENOMEM;
        return NULL;
    }
    char *made = (char *)(((uintptr_t)large_pool + at + 16 + align - 1) & ~(align - 1));
    memcpy(made - 8, &size, sizeof size);
    return made;
}

void *malloc(size_t size) { return get(16, size); }
void free(void *p) {
    int class = class_of(p);
    if (class < 0) return;
    *(void **)p = freed[class];
    freed[class] = p;
}
void *calloc(size_t count, size_t size) {
    void *made = get(16, count * size);
    return made ? memset(made, 0, count * size) : NULL;
}
void *realloc(void *old, size_t size) {
    void *made = get(16, size);
    if (made && old) {
        size_t before = 16 * ((size_t)class_of(old) + 1);
        if (class_of(old) < 0) memcpy(&before, (char *)old - 8, sizeof before);
        memcpy(made, old, before < size ? before : size);
        free(old);
    }
    return made;
}
void *aligned_alloc(size_t align, size_t size) { return get(align, size); }
int posix_memalign(void **out, size_t align, size_t size) {
    *out = get(align, size);
    return *out ? 0 : ENOMEM;
}
void *__libc_malloc(size_t size) __attribute__((alias("malloc")));
void *_Znwm(size_t size) { return get(16, size); }
void *_Znam(size_t size) { return get(16, size); }
void _ZdlPv(void *p) { free(p); }
void _ZdaPv(void *p) { free(p); }
void _ZdlPvm(void *p, size_t size) { (void)size, free(p); }
void _ZdaPvm(void *p, size_t size) { (void)size, free(p); }
