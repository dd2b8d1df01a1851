// One process executes five programs one after another. The trace must show the last program.
//#Run: 5
//#Trace: last_image allocs=1 allocated_bytes=555 frees=0
//#Trace: earlier_image allocs=0
#include "check.h"

NOINLINE void last_image(void) { keep(malloc(555)); }
NOINLINE void earlier_image(void) { keep(malloc(444)); }

int main(int argc, char **argv) {
    CHECK(argc == 2);
    int left = atoi(argv[1]);
    exercise(500);
    if (left == 0) {
        last_image();
        say("ok\n");
        return 5;
    }
    earlier_image();
    char next[16];
    snprintf(next, sizeof next, "%d", left - 1);
    execl("/proc/self/exe", argv[0], next, (char *)NULL);
    return 1;
}
