// Two threads call dlopen and dlclose as fast as possible, while a third thread allocates.
//#Build: -ldl -Wl,-rpath,$OUT
#include "check.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>

static atomic_int stop;
static void *allocates(void *unused) {
    while (!stop) exercise(100);
    return unused;
}
static void *loads(void *name) {
    for (int i = 0; i < 500; i++) {
        void *plugin = dlopen(name, RTLD_NOW);
        CHECK(plugin);
        void *(*make)(size_t) = (void *(*)(size_t))dlsym(plugin, "make");
        free(make(100));
        CHECK(dlclose(plugin) == 0);
    }
    return NULL;
}

int main(void) {
    pthread_t threads[3];
    pthread_create(&threads[0], NULL, allocates, NULL);
    pthread_create(&threads[1], NULL, loads, "libplugin_a.so");
    pthread_create(&threads[2], NULL, loads, "libplugin_b.so");
    pthread_join(threads[1], NULL);
    pthread_join(threads[2], NULL);
    stop = 1;
    pthread_join(threads[0], NULL);
    say("ok\n");
}
