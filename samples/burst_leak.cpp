// A connection that fails leaks its state. One to eight connections fail together, at random moments.
//
//#Expect: Leak in fail_connection
//#Expect: nothing else
#include "pace.h"

struct connection { char state[600]; };

NOINLINE void fail_connection() { keep(new connection); }

int main(int argc, char **argv) {
    pace p = pace_start(argc, argv, 5, 100);
    while (pace_next(&p))
        if (pace_random() % 8 == 0)
            for (uint32_t burst = 1 + pace_random() % 8; burst; burst--) fail_connection();
}
