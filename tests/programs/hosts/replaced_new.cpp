// A program with its own operator new and operator delete, which count their calls and call malloc and free.
//#Trace: counting_new allocs=1000 allocated_bytes=100000 frees=1000
#include "check.h"
#include <new>

static long made, deleted;
extern "C" NOINLINE void *counting_new(size_t size) { return keep(malloc(size)); }
void *operator new(size_t size) {
    made++;
    if (void *p = counting_new(size)) return p;
    throw std::bad_alloc();
}
void operator delete(void *p) noexcept {
    deleted++;
    free(p);
}
void operator delete(void *p, size_t) noexcept { operator delete(p); }

int main() {
    struct thing { char data[100]; };
    for (int i = 0; i < 1000; i++) delete static_cast<thing *>(keep(new thing));
    CHECK(made == 1000 && deleted == 1000);
    say("ok\n");
}
