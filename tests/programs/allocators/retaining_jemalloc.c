// A program with jemalloc linked in has higher and higher peaks of memory, and frees everything after each
// peak. So the live memory of the program stays small, but jemalloc retains more and more memory.
//
//   retaining_jemalloc SECONDS
//
//#Build: -fno-builtin -l:libjemalloc.a -ldl -lm -lstdc++
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *malloc_conf = "dirty_decay_ms:-1,muzzy_decay_ms:-1";
enum { PEAKS = 40, STEP = 2000, BYTES = 100 };
static char *held[PEAKS * STEP];

__attribute__((noinline, noclone)) static char *allocate(void) {
    char *p = memset(malloc(BYTES), 1, BYTES);
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

int main(int argc, char **argv) {
    useconds_t pause = (argc > 1 ? atoi(argv[1]) : 4) * 1000000 / PEAKS;
    for (int peak = 1; peak <= PEAKS; peak++) {
        for (int i = 0; i < peak * STEP; i++) held[i] = allocate();
        for (int i = 0; i < peak * STEP; i++) free(held[i]);
        usleep(pause);
    }
    return 0;
}
