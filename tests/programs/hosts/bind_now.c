// Runs with LD_BIND_NOW, so the loader binds all symbols at the start.
//#Env: LD_BIND_NOW=1
//#Trace: bound allocs=100 allocated_bytes=10000 frees=100
#include "check.h"

NOINLINE void *bound(void) { return keep(malloc(100)); }
int main(void) {
    for (int i = 0; i < 100; i++) free(bound());
    exercise(1000);
    say("ok\n");
}
