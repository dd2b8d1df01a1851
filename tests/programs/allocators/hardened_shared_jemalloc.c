// Leaks through mallocx of a shared jemalloc; a preloaded library cannot replace mallocx. The first run makes
// the kernel forbid new executable memory (PR_SET_MDWE), and executes the program again.
//
//   hardened_shared_jemalloc SECONDS
//
//#Build: -fno-builtin -ljemalloc
#include <jemalloc/jemalloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif

__attribute__((noinline)) static void leak(size_t size) {
    void *volatile block = mallocx(size, 0);
    memset(block, 1, size);
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 0.1;
    if (argc < 3) {
        if (prctl(PR_SET_MDWE, 1, 0, 0, 0) != 0) return puts("allowed"), 0;
        char *arguments[] = {argv[0], argv[1], "again", NULL};
        execv("/proc/self/exe", arguments);
        return 1;
    }
    struct timespec pause = {0, 10 * 1000 * 1000};
    for (int i = 0; i < seconds * 100; i++) {
        leak(300 << 10);
        char *volatile counted = malloc(1000);
        free(counted);
        nanosleep(&pause, NULL);
    }
    puts("done");
}
