// Makes objects that it no longer needs, and frees all of these objects about three times a second.
//
//#Expect: no leak
#include "pace.h"

enum { CAPACITY = 120 };
static void *garbage[CAPACITY];
static int used;

NOINLINE void *make_object(void) { return keep(malloc(300)); }

int main(int argc, char **argv) {
    struct pace p = pace_start(argc, argv, 6, 400);
    while (pace_next(&p)) {
        garbage[used++] = make_object();
        if (used == CAPACITY)
            while (used) free(garbage[--used]);
    }
}
