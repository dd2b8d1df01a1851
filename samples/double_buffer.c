// Two frame buffers of changing size: each new frame replaces the frame before the previous one.
//
//#Expect: no leak
#include "pace.h"

static void *frames[2];

NOINLINE void draw(long tick) {
    free(frames[tick % 2]);
    frames[tick % 2] = keep(malloc(10000 + pace_random() % 20000));
}

int main(int argc, char **argv) {
    struct pace p = pace_start(argc, argv, 5, 60);
    while (pace_next(&p)) draw(p.tick);
}
