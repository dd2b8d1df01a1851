// Loads a library that needs most of the static TLS that glibc reserves. edleak must leave enough of it.
//#Build: -ldl -Wl,-rpath,$OUT
#include "check.h"
#include <dlfcn.h>

int main(void) {
    exercise(100);
    void *library = dlopen("libstatic_tls.so", RTLD_NOW);
    if (!library) say(dlerror());
    CHECK(library);
    int (*count)(void) = (int (*)(void))dlsym(library, "count");
    CHECK(count && count() == 1 && count() == 2);
    exercise(100);
    say("ok\n");
}
