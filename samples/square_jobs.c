// Runs jobs with pauses between them. Each job allocates a megabyte, works for a while and frees everything.
//
//#Expect: no leak
#include "pace.h"

static void *scratch[256];

NOINLINE void start_job(void) {
    for (int i = 0; i < 256; i++) scratch[i] = keep(malloc(4096));
}

static void end_job(void) {
    for (int i = 0; i < 256; i++) free(scratch[i]);
}

int main(int argc, char **argv) {
    struct pace p = pace_start(argc, argv, 6, 100);
    while (pace_next(&p)) {
        if (p.tick % 80 == 20) start_job();
        if (p.tick % 80 == 60) end_job();
    }
}
