// Sets a new_handler that at first frees memory and later gives up.
#include "check.h"
#include <new>

static int calls;
static void handler() {
    free(keep(malloc(100)));
    if (++calls == 3) throw std::bad_alloc();
}
int main() {
    std::set_new_handler(handler);
    static volatile size_t huge = SIZE_MAX / 4;
    bool thrown = false;
    try {
        keep(::operator new(huge));
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    CHECK(thrown && calls == 3);
    calls = 0;
    CHECK(keep(::operator new(huge, std::nothrow)) == nullptr && calls == 3);
    say("ok\n");
}
