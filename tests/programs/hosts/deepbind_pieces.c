// A plugin frees large blocks, and edleak does not see these frees. malloc cuts smaller blocks out of the
// freed memory, so these blocks begin inside the old block's entries in the side table. edleak must count
// each large and each small block as freed once, with its own size.
//#Build: -ldl -Wl,-rpath,$OUT
//#Trace: first allocs=100 allocated_bytes=4000000 frees=100 freed_bytes=4000000
//#Trace: piece allocs=4000 allocated_bytes=288000 frees=4000 freed_bytes=288000
#include "check.h"
#include <dlfcn.h>

NOINLINE void *before(void) { return keep(malloc(2000)); }
NOINLINE void *first(void) { return keep(malloc(40000)); }
NOINLINE void *piece(void) { return keep(malloc(72)); }

int main(void) {
    void *plugin = dlopen("libplugin_a.so", RTLD_NOW | RTLD_DEEPBIND);
    CHECK(plugin);
    void (*release)(void *) = (void (*)(void *))dlsym(plugin, "release");
    int reused = 0;
    for (int round = 0; round < 100; round++) {
        char *p = before(), *large = first();
        CHECK(large - p == 2016); // malloc cut this block out of the freed memory, as the test needs
        free(p);
        release(large);
        char *pieces[40];
        for (int i = 0; i < 40; i++) {
            pieces[i] = piece();
            reused += pieces[i] > large && pieces[i] < large + 160;
        }
        for (int i = 0; i < 40; i++) free(pieces[i]);
    }
    CHECK(reused > 0);
    say("ok\n");
}
