// Loads a library that needs most of glibc's reserve of static TLS. edleak must leave enough for the library.
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
