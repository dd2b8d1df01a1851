// A pool grows while the load is high, and then frees only half of this growth. So each peak of load leaves
// the pool larger.
//
//#Expect: Leak in grow_pool
//#Expect: nothing else
#include "pace.h"

enum { CAPACITY = 4096 };
static void *pool[CAPACITY];
static int used;

NOINLINE void grow_pool(void) {
    if (used < CAPACITY) pool[used++] = keep(malloc(300));
}

static void shrink_pool(void) { free(pool[--used]); }

int main(int argc, char **argv) {
    struct pace p = pace_start(argc, argv, 6, 200);
    while (pace_next(&p)) {
        long phase = p.tick % 60;
        if (phase < 30) grow_pool(), grow_pool();
        else if (phase % 2) shrink_pool(), shrink_pool();
    }
}
