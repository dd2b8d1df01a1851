// A pool that grows until the middle of the run, because the program needs more and more objects. Then the
// number of objects in use and the size of the pool stay constant.
//
//#Expect: no leak
#include "pace.h"

static void *pool[1000];

NOINLINE void *grow_pool(void) { return keep(malloc(400)); }

int main(int argc, char **argv) {
    struct pace p = pace_start(argc, argv, 6, 200);
    while (pace_next(&p))
        if (pace_fraction(&p) < 0.45) pool[p.tick % 1000] = grow_pool();
}
