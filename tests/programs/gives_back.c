// Maps more and more memory, writes it, and gives most of it back to the kernel with madvise.
//
//   gives_back flood           calls madvise 5 million times without a pause, so the ring of events is full
//   gives_back [--seconds N]   maps 1 MiB a hundred times a second; gives back all of it but the first page
//
// Prints the number of calls that gave pages back.
#include "pace.h"
#include <stdio.h>
#include <sys/mman.h>

#define MIB (1 << 20)
__attribute__((noinline)) static char *region(void) {
    // The volatile variable keeps the compiler from turning the call of mmap into a jump.
    char *volatile m = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return m;
}

int main(int argc, char **argv) {
    long calls = 0;
    keep(malloc(100000));
    if (argc > 1 && strcmp(argv[1], "flood") == 0) {
        char *m = region();
        for (; calls < 5000000; calls++)
            if (madvise(m, 4096, MADV_DONTNEED) != 0) return 1;
        for (int i = 0; i < 100; i++) region();
        printf("%ld\n", calls);
        return 0;
    }
    for (struct pace p = pace_start(argc, argv, 3, 100); pace_next(&p);) {
        char *m = region();
        memset(m, 1, MIB);
        if (madvise(m + 4096, MIB - 4096, MADV_DONTNEED) != 0) return 1;
        calls++;
        free(keep(malloc(100)));
    }
    printf("%ld\n", calls);
    fflush(stdout);
}
