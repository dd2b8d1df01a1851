// Frees after main: in an atexit handler, in the destructor of a static object, and in a destructor function.
//#Trace: made_in_main allocs=3 allocated_bytes=300 frees=3
#include "check.h"

static void *by_atexit, *by_static, *by_image;
extern "C" NOINLINE void *made_in_main() { return keep(malloc(100)); }
struct owner { ~owner() { free(by_static); exercise(100); } };
static owner instance;
static void at_exit() { free(by_atexit); exercise(100); }
__attribute__((destructor(101))) static void image_destructor() {
    free(by_image);
    exercise(100);
    say("ok\n");
}

int main() {
    atexit(at_exit);
    by_atexit = made_in_main();
    by_static = made_in_main();
    by_image = made_in_main();
    return 3;
}
