// A plugin in its own linker namespace has its own copy of libc, with another heap.
//#Build: -ldl -Wl,-rpath,$OUT
#include "check.h"
#include <dlfcn.h>
#include <limits.h>

int main(int argc, char **argv) {
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    CHECK(n > 0 && argc == 1);
    path[n] = 0;
    strcpy(strrchr(path, '/') + 1, "libplugin_a.so");
    for (int round = 0; round < 5; round++) {
        void *plugin = dlmopen(LM_ID_NEWLM, path, RTLD_NOW);
        CHECK(plugin);
        void *(*make)(size_t) = (void *(*)(size_t))dlsym(plugin, "make");
        void (*release)(void *) = (void (*)(void *))dlsym(plugin, "release");
        for (int i = 0; i < 200; i++) release(make(100));
        exercise(500);
        CHECK(dlclose(plugin) == 0);
    }
    say("ok\n");
    (void)argv;
}
