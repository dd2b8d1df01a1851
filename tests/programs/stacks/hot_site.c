// `hot_site SECONDS`: one site with three call paths allocates without a pause for SECONDS of processor time.
// One of 64 allocations leaks. The program prints the processor time that it used, in nanoseconds.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define NOINLINE __attribute__((noinline, noclone))
static volatile unsigned work;

static uint64_t used_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

NOINLINE static void **hot_make(void) {
    void **made = malloc(64);
    *made = NULL;
    for (int i = 0; i < 1000; i++) work++;
    return made;
}

NOINLINE static void path_freed(void) {
    free(hot_make());
    work++;
}

NOINLINE static void path_window(unsigned round) {
    static void **window[32];
    free(window[round % 32]);
    window[round % 32] = hot_make();
    work++;
}

NOINLINE static void path_kept(void) {
    static void **kept;
    void **made = hot_make();
    *made = kept;
    kept = made;
    work++;
}

int main(int argc, char **argv) {
    uint64_t until_ns = (uint64_t)(argc > 1 ? atof(argv[1]) * 1e9 : 4e9);
    for (unsigned round = 0; used_ns() < until_ns; round++) {
        for (int i = 0; i < 63; i++) (i % 2) ? path_freed() : path_window(round + (unsigned)i);
        path_kept();
    }
    printf("%llu\n", (unsigned long long)used_ns());
}
