// Works for one second, in which the tests end or stop edleak-record, and then prints a line.
//#Trace: works allocs=100 allocated_bytes=10000 frees=0
#include "check.h"

NOINLINE void works(void) { keep(malloc(100)); }
int main(void) {
    say("started\n");
    for (int i = 0; i < 100; i++) {
        works();
        exercise(100);
        usleep(10000);
    }
    say("ok\n");
    return 7;
}
