// Keeps the last two frames, which have changing sizes. Each new frame replaces the older of the two.
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
