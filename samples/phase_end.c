// A job that collects results for most of the run, then frees all results and stays idle.
//
//#Expect: no leak
#include "pace.h"

static void *results[2000];
static int used;

NOINLINE void *make_result(void) { return keep(malloc(250)); }

int main(int argc, char **argv) {
    struct pace p = pace_start(argc, argv, 6, 200);
    while (pace_next(&p)) {
        if (pace_fraction(&p) < 0.6) results[used++] = make_result();
        else
            while (used) free(results[--used]);
    }
}
