// Loads a large configuration once in the middle of the run, and keeps the configuration.
//
//#Expect: no leak
#include "pace.h"

static void *rules[500];

NOINLINE void load_configuration(void) {
    for (int i = 0; i < 500; i++) rules[i] = keep(malloc(150));
}

int main(int argc, char **argv) {
    struct pace p = pace_start(argc, argv, 5, 50);
    while (pace_next(&p))
        if (p.tick == p.ticks / 2) load_configuration();
}
