//#Expect: Leak in load_config
// A program that reloads its plugins again and again, as proxies and game engines do. The plugins leak their
// configuration.

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int n = atoi(argv[1]); int sum = 0;
    for (int i = 0; i < n; i++) {
        const char *name = i % 2 ? "./libplug_a.so" : "./libplug_b.so";       // both get the same addresses
        void *h = dlopen(name, RTLD_NOW);
        if (!h) { puts(dlerror()); return 1; }
        ((void (*)(int))dlsym(h, "plugin_init"))(i);
        sum += ((int (*)(int))dlsym(h, "plugin_work"))(i);
        dlclose(h);
        usleep(20000);
    }
    printf("ledger: a %d bytes, b %d bytes (%d)\n", n / 2 * 700, (n + 1) / 2 * 1900, sum);
}
