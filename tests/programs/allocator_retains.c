// In the middle of the run, one job makes many small allocations. One allocation in a hundred is never freed,
// so the allocator cannot return the page of this allocation to the kernel.
#include "pace.h"

int main(int argc, char **argv) {
    static char *held[200000];
    long n = 0, most = sizeof held / sizeof *held;
    for (struct pace p = pace_start(argc, argv, 4, 100); pace_next(&p);) {
        double done = pace_fraction(&p);
        for (; n < most && done > 0.3 + 0.2 * (double)n / (double)most; n++)
            held[n] = memset(keep(malloc(100)), 1, 100);
        if (p.tick == p.ticks * 6 / 10)
            for (long i = 0; i < n; i++)
                if (i % 100) free(held[i]);
    }
}
