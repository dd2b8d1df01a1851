// Builds a report of 40 rows every 0.25 seconds and never frees the report. So the curve of the live bytes
// rises in equal steps.
//
//#Expect: Leak in build_report
//#Expect: nothing else
#include "pace.h"

static void *rows[40];

NOINLINE void build_report(void) {
    for (int i = 0; i < 40; i++) rows[i] = keep(malloc(200));
}

int main(int argc, char **argv) {
    struct pace p = pace_start(argc, argv, 5, 40);
    while (pace_next(&p))
        if (p.tick % 10 == 0) build_report();
}
