//#Expect: 1,000 allocations of 1,000 bytes by leaky
// A plugin leaks and is unloaded. Before the next slice, another plugin is loaded at the same address.
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

typedef void *(*function)(void);

static function loaded(const char *library, const char *name, void **handle) {
    *handle = dlopen(library, RTLD_NOW);
    if (!*handle) {
        puts(dlerror());
        _exit(1);
    }
    return (function)dlsym(*handle, name);
}

int main(void) {
    void *a, *b;
    usleep(600000);
    function leaky = loaded("./libunloaded_a.so", "leaky", &a);
    for (int i = 0; i < 1000; i++) leaky();
    printf("%p\n", (void *)leaky);
    dlclose(a);
    function innocent = loaded("./libunloaded_b.so", "innocent", &b);
    innocent();
    printf("%p\n", (void *)innocent);
    sleep(2);
    return 0;
}
