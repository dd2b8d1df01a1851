// The program allocates in every way while a dlerror message is pending. edleak must not clear the message.
//#Run:
#include "check.h"
#include <dlfcn.h>
#include <malloc.h>
#include <new>

template <typename F> static void keeps_the_message(F allocate) {
    CHECK(!dlopen("/nonexistent.so", RTLD_NOW));
    allocate();
    const char *message = dlerror();
    say(message ? message : "the message is gone");
    say("\n");
}

int main() {
    keeps_the_message([] { keep(new char[500]); });
    keeps_the_message([] { operator delete(nullptr); });
    keeps_the_message([] { keep(new (std::nothrow) int); });
    keeps_the_message([] { keep(new (std::align_val_t(64)) char[64]); });
    keeps_the_message([] { void *p; CHECK(!posix_memalign(&p, 64, 500)); });
    keeps_the_message([] { keep(aligned_alloc(64, 512)); });
    keeps_the_message([] { keep(memalign(64, 512)); });
    keeps_the_message([] { keep(valloc(10)); });
    keeps_the_message([] { keep(pvalloc(10)); });
    keeps_the_message([] { keep(reallocarray(nullptr, 10, 10)); });
    static volatile size_t most = SIZE_MAX;
    keeps_the_message([] { CHECK(!reallocarray(nullptr, most, 10)); });
}
