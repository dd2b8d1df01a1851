// One function makes the entries of a cache and also entries that leak. The cache is full within the first
// second. In every fourth tick, the function makes a further entry that the program never reads or frees.
//#Expect: Leak in make_entry
//#Expect: nothing else
#include "pace.h"

enum { SLOTS = 160 };
static void *table[SLOTS];

NOINLINE void *make_entry(void) { return keep(malloc(160)); }

int main(int argc, char **argv) {
    struct pace p = pace_start(argc, argv, 6, 200);
    while (pace_next(&p)) {
        if (p.tick < SLOTS) table[p.tick] = make_entry();
        if (p.tick % 4 == 0) make_entry();
    }
}
