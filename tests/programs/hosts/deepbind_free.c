// A plugin frees a counted allocation, and edleak does not see this free. The program gets the same address
// again, so edleak must remove the entry of the first allocation.
//#Build: -ldl -Wl,-rpath,$OUT
//#Trace: second allocs=500 allocated_bytes=50000 frees=500
#include "check.h"
#include <dlfcn.h>

NOINLINE void *first(void) { return keep(malloc(100)); }
NOINLINE void *second(void) { return keep(malloc(100)); }

int main(void) {
    void *plugin = dlopen("libplugin_a.so", RTLD_NOW | RTLD_DEEPBIND);
    CHECK(plugin);
    void (*release)(void *) = (void (*)(void *))dlsym(plugin, "release");
    for (int i = 0; i < 500; i++) {
        void *p = first();
        release(p);
        void *q = second();
        CHECK(p == q); // malloc returned the same address, as the test needs
        free(q);
    }
    say("ok\n");
}
