// A program that defines its own mmap and munmap. The program's mmap calls edleak's mmap, which calls libc's
// mmap. The program's munmap calls edleak's munmap, which calls libc's munmap.
#include "check.h"
#include <dlfcn.h>
#include <sys/mman.h>

static long calls;

void *mmap(void *address, size_t length, int protection, int flags, int file, off_t offset) {
    static void *(*next)(void *, size_t, int, int, int, off_t);
    if (!next) next = (void *(*)(void *, size_t, int, int, int, off_t))dlsym(RTLD_NEXT, "mmap");
    calls++;
    return next(address, length, protection, flags, file, offset);
}

int munmap(void *address, size_t length) {
    static int (*next)(void *, size_t);
    if (!next) next = (int (*)(void *, size_t))dlsym(RTLD_NEXT, "munmap");
    calls++;
    return next(address, length);
}

int main(void) {
    for (int i = 0; i < 1000; i++) {
        char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(p != MAP_FAILED);
        p[5000] = 1;
        CHECK(munmap(p, 8192) == 0);
    }
    CHECK(calls == 2000);
    exercise(1000);
    say("ok\n");
}
