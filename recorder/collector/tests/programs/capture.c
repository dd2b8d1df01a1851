// A library for the test programs. At the chosen point the library writes the registers, the bytes of the
// stack, the memory map, and the frames that libgcc's unwinder finds.
//
//   regs RIP RSP RBP
//   stack START LENGTH
//   frame ADDRESS          one per frame of backtrace(), innermost first
//   maps                   then /proc/self/maps, an empty line, and the stack's bytes
#define _GNU_SOURCE
#include <execinfo.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// After a call of arm(), this library captures the stack of the next allocation. A test program links this
// library first, so each allocation of the program goes through the functions of this library.
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
static int is_armed;
void capture(void);

void arm(void) { is_armed = 1; }

static void see(void) {
    if (!is_armed) return;
    is_armed = 0;
    capture();
}

void *malloc(size_t size) { return see(), __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return see(), __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { return see(), __libc_realloc(old, size); }

static uintptr_t end_of_mapping(const char *maps, uintptr_t address) {
    while (*maps) {
        uintptr_t start, end;
        if (sscanf(maps, "%lx-%lx", &start, &end) == 2 && start <= address && address < end) return end;
        maps = strchr(maps, '\n') + 1;
    }
    abort();
}

void capture(void) {
    static void *frames[1024];
    static char maps[1 << 18];
    int depth = backtrace(frames, 1024);
    size_t length = 0;
    int fd = open("/proc/self/maps", O_RDONLY);
    for (ssize_t n; (n = read(fd, maps + length, sizeof maps - 1 - length)) > 0;) length += n;
    uintptr_t rip, rsp, rbp;
    __asm__ volatile("lea 0(%%rip), %0\n\tmov %%rsp, %1\n\tmov %%rbp, %2" : "=r"(rip), "=r"(rsp), "=r"(rbp));
    uintptr_t end = end_of_mapping(maps, rsp);
    printf("regs %lx %lx %lx\nstack %lx %lx\n", rip, rsp, rbp, rsp, end - rsp);
    for (int i = 0; i < depth; i++) printf("frame %lx\n", (uintptr_t)frames[i]);
    printf("maps\n%s\n", maps);
    fwrite((void *)rsp, 1, end - rsp, stdout);
    fflush(stdout);
    _exit(0);
}
