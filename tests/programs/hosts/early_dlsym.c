// Calls dlsym for a missing symbol in the very first constructor. libc then allocates an error message.
//#Build: -ldl
#include "check.h"
#include <dlfcn.h>

__attribute__((constructor(101))) static void early(void) {
    CHECK(dlsym(RTLD_DEFAULT, "there_is_no_such_symbol") == NULL);
    CHECK(strstr(dlerror(), "there_is_no_such_symbol"));
    void *(*real_malloc)(size_t) = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "malloc");
    CHECK(real_malloc);
    free(keep(real_malloc(100)));
}

int main(void) {
    for (int i = 0; i < 1000; i++) {
        CHECK(dlsym(RTLD_NEXT, "there_is_no_such_symbol") == NULL);
        CHECK(dlerror());
    }
    exercise(1000);
    say("ok\n");
}
