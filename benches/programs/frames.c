/* `frames DEPTH COUNT malloc|unwind`: sixteen functions call each other in turn until the stack has DEPTH
 * frames. Then the innermost function makes and frees an allocation COUNT times (`malloc`), or walks the
 * stack with libunwind COUNT times (`unwind`). The program writes the nanoseconds of one repetition to the
 * file $BENCH_OUT. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef HAVE_LIBUNWIND
#include <libunwind.h>
#endif

static long count;
static int unwinds;
static double spent_ns;
static void *volatile kept;

static double now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e9 + now.tv_nsec;
}

static __attribute__((noinline)) void bottom(void) {
    double start = now_ns();
    for (long i = 0; i < count; i++) {
        if (unwinds) {
#ifdef HAVE_LIBUNWIND
            void *frames[128];
            kept = (void *)(long)unw_backtrace(frames, 128);
#endif
        } else {
            kept = malloc(64);
            free(kept);
        }
    }
    spent_ns = now_ns() - start;
}

#define FUNCTION(n, next)                                                                                    \
    static __attribute__((noinline)) long f##n(long depth, long a) {                                         \
        volatile char room[16 + n * 8];                                                                      \
        room[0] = (char)depth;                                                                               \
        if (depth <= 0) bottom();                                                                            \
        else a += next(depth - 1, a + n);                                                                    \
        return a + room[0];                                                                                  \
    }
static long f15(long, long);
FUNCTION(0, f15) FUNCTION(1, f0) FUNCTION(2, f1) FUNCTION(3, f2) FUNCTION(4, f3) FUNCTION(5, f4)
FUNCTION(6, f5) FUNCTION(7, f6) FUNCTION(8, f7) FUNCTION(9, f8) FUNCTION(10, f9) FUNCTION(11, f10)
FUNCTION(12, f11) FUNCTION(13, f12) FUNCTION(14, f13) FUNCTION(15, f14)

int main(int argc, char **argv) {
    if (argc != 4 || !getenv("BENCH_OUT")) return 2;
    count = 1000;
    unwinds = !strcmp(argv[3], "unwind");
    f0(atol(argv[1]), 0); /* fills the caches */
    struct timespec while_rules_are_compiled = {0, 300000000};
    nanosleep(&while_rules_are_compiled, NULL);
    f0(atol(argv[1]), 0);
    count = atol(argv[2]);
    long used = f0(atol(argv[1]), 0);
    FILE *out = fopen(getenv("BENCH_OUT"), "w");
    if (!out) return 3;
    fprintf(out, "%.3f\n", spent_ns / (double)count);
    return fclose(out) != 0 || used == 12345;
}
