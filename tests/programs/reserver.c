// Reserves more and more address space and never touches it, as some runtimes do. Its heap does not grow.
#include "pace.h"
#include <sys/mman.h>

__attribute__((noinline)) static void *reserve(void) {
    // The volatile variable keeps the compiler from turning the call of mmap into a jump.
    void *volatile m = mmap(NULL, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return m;
}

int main(int argc, char **argv) {
    keep(malloc(100000));
    for (struct pace p = pace_start(argc, argv, 2, 100); pace_next(&p);) {
        keep(reserve());
        free(keep(malloc(100)));
    }
}
