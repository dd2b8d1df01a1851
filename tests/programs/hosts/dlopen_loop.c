// The program loads two plugins in turn, mostly at the same address. edleak must count each allocation at the
// plugin that made it.
//#Build: -ldl -Wl,-rpath,$OUT
//#Run: 12 120
//#Trace: plugin_a_makes allocs=600 allocated_bytes=60000 frees=0
//#Trace: plugin_b_makes allocs=600 allocated_bytes=120000 frees=600
#include "check.h"
#include <dlfcn.h>

int main(int argc, char **argv) {
    CHECK(argc == 3);
    int rounds = atoi(argv[1]), pause_ms = atoi(argv[2]);
    for (int round = 0; round < rounds; round++) {
        int is_b = round % 2;
        void *plugin = dlopen(is_b ? "libplugin_b.so" : "libplugin_a.so", RTLD_NOW);
        CHECK(plugin);
        void *(*make)(size_t) = (void *(*)(size_t))dlsym(plugin, "make");
        void (*release)(void *) = (void (*)(void *))dlsym(plugin, "release");
        CHECK(make && release);
        for (int i = 0; i < 100; i++) {
            void *p = make(is_b ? 200 : 100);
            CHECK(p);
            if (is_b) release(p);
        }
        usleep((unsigned)pause_ms * 1000);
        CHECK(dlclose(plugin) == 0);
        usleep((unsigned)pause_ms * 1000);
    }
    say("ok\n");
}
