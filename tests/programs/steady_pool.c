// Keeps a constant number of live blocks. Every millisecond the program frees its oldest blocks and allocates
// the same number of new blocks.
//
//   steady_pool SECONDS BLOCKS PER_MILLISECOND
//
// With 12,000 blocks and 2 per millisecond, each block lives for six seconds. If a recording begins while
// this program runs, the recorded live bytes grow from zero for six seconds, although nothing leaks.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

__attribute__((noinline)) static void *site_pool(size_t size) {
    void *p = malloc(size);
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    double seconds = atof(argv[1]);
    size_t count = strtoul(argv[2], NULL, 10), rate = strtoul(argv[3], NULL, 10), at = 0;
    void **blocks = calloc(count, sizeof *blocks);
    if (!blocks) return 2;
    for (size_t i = 0; i < count; i++) blocks[i] = site_pool(200);
    puts("full");
    fflush(stdout);
    double began = now(), done = 0;
    while (now() - began < seconds) {
        // Makes one step per elapsed millisecond, so that the rate does not depend on the machine's load.
        for (; done < (now() - began) * 1000; done++) {
            for (size_t i = 0; i < rate; i++, at = (at + 1) % count) {
                free(blocks[at]);
                blocks[at] = site_pool(200);
            }
        }
        struct timespec pause = {0, 1000000};
        nanosleep(&pause, NULL);
    }
    return 0;
}
