// Is linked with two libraries that ask for the same high address. The loader puts one of them lower, so the
// difference between its address and its link-time address is negative. edleak reads the symbol tables of
// both.
//#Build: -L$OUT -l:libhigh_a.so -l:libhigh_b.so -Wl,-rpath,$OUT
#include "check.h"

int high_a(void);
int high_b(void);

int main(void) {
    CHECK(high_a() + high_b() == 14);
    exercise(1000);
    say("ok\n");
}
