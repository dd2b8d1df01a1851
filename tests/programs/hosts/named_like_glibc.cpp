// Uses the allocator libnamed_like_glibc.c. edleak must count the program's allocations of every size.
//#Env: LD_PRELOAD=$OUT/libnamed_like_glibc.so
//#Trace: in_malloc allocs=3000 frees=2000 live_bytes=8468
//#Trace: in_new allocs=3000 frees=2000 live_bytes=8468
#include "check.h"
#include <initializer_list>
#include <new>

NOINLINE static void *in_malloc(size_t size) { return keep(malloc(size)); }
NOINLINE static void *in_new(size_t size) { return keep(operator new(size)); }

int main() {
    static void *held[1000];
    for (auto make : {in_malloc, in_new})
        for (int round = 0; round < 3; round++)
            for (int i = 0; i < 1000; i++) {
                if (round && make == in_malloc) free(held[i]);
                if (round && make == in_new) operator delete(held[i]);
                held[i] = make(1 + i % 16);
                CHECK(held[i]);
            }
    say("ok\n");
}
