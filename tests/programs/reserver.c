// Address space that grows and is never touched, as a runtime reserves it, beside a heap that does not grow.
#include "pace.h"
#include <sys/mman.h>

__attribute__((noinline)) static void *reserve(void) {
    // Through a volatile variable, so the call is no jump from main.
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
