// The program resizes and frees blocks from a plugin that calls libc's malloc directly (RTLD_DEEPBIND).
//#Build: -ldl -Wl,-rpath,$OUT
//#Trace: ours allocs=500 allocated_bytes=50000 frees=0
#include "check.h"
#include <dlfcn.h>

NOINLINE void *ours(void) { return keep(malloc(100)); }

int main(void) {
    void *plugin = dlopen("libplugin_a.so", RTLD_NOW | RTLD_DEEPBIND);
    CHECK(plugin);
    void *(*make)(size_t) = (void *(*)(size_t))dlsym(plugin, "make");
    for (int i = 0; i < 500; i++) {
        void *theirs = make(100);
        CHECK(theirs);
        memset(theirs, 1, 100);
        theirs = realloc(theirs, 200);
        CHECK(theirs && ((char *)theirs)[99] == 1);
        free(theirs);
    }
    static void *held[500];
    for (int i = 0; i < 500; i++) held[i] = ours();
    for (int i = 0; i < 500; i++) memset(held[i], 2, 100);
    exercise(1000);
    say("ok\n");
}
