// Builds each lookup table when it is first used. After 1/5 of the run, all tables exist.
//
//#Expect: no leak
#include "pace.h"

static void *tables[64];

NOINLINE void *build_table(void) { return keep(calloc(256, 8)); }

int main(int argc, char **argv) {
    struct pace p = pace_start(argc, argv, 5, 200);
    while (pace_next(&p)) {
        uint32_t wanted = pace_random() % (p.tick < 200 ? 64 : 1);
        if (!tables[wanted]) tables[wanted] = build_table();
        if (p.tick == 200)
            for (int i = 0; i < 64; i++)
                if (!tables[i]) tables[i] = build_table();
    }
}
