// A program linked at a fixed address. The addresses of malloc, free and operator delete that it stores or
// looks up by name lie in stubs in the program. edleak must count this program like any other program.
//#Build: -no-pie -fno-pie
//#Trace: in_own allocs=1000 frees=1000
#include "check.h"
#include <new>

static void *(*volatile take)(size_t);
static void *(*volatile take_zeroed)(size_t, size_t);
static void *(*volatile take_again)(void *, size_t);
static void (*volatile give)(void *);
static void *(*volatile make)(size_t);
static void (*volatile unmake)(void *);

NOINLINE static void in_own(int i) {
    switch (i % 3) {
    case 0: give(keep(take(100))); break;
    case 1: give(keep(take_zeroed(10, 10))); break;
    default: unmake(keep(make(100)));
    }
}

int main() {
    // The linker stores the function addresses in code: they are addresses of the program's stubs. If they
    // were in data, the loader would store the addresses of the functions themselves.
    take = malloc, take_zeroed = calloc, take_again = realloc, give = free;
    make = operator new, unmake = operator delete;
    for (int i = 0; i < 1000; i++) in_own(i);
    give(keep(take_again(keep(take(10)), 1000)));
    say("ok\n");
}
