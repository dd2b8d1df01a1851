// Each tick leaks a little more memory than the tick before, so memory grows with the square of time.
//
//#Expect: Leak in retry_all
//#Expect: nothing else
#include "pace.h"

NOINLINE void retry_all(long failed) {
    for (long i = 0; i < failed; i++) keep(malloc(64));
}

int main(int argc, char **argv) {
    struct pace p = pace_start(argc, argv, 5, 100);
    while (pace_next(&p)) retry_all(p.tick / 10);
}
