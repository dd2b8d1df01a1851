// Throws exceptions through frames that hold allocations, from constructors, and from a failed operator new.
//#Trace: thrower allocs=2000 allocated_bytes=200000 frees=2000
#include "check.h"
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

extern "C" NOINLINE char *thrower() { return static_cast<char *>(keep(new char[100])); }

static void descend(int levels) {
    std::unique_ptr<char[]> held(thrower());
    std::string text(200, 'x');
    if (levels) descend(levels - 1);
    else throw std::runtime_error("from the bottom, with a message that is longer than a small string");
}
struct refuses {
    std::vector<int> member = std::vector<int>(100);
    refuses() { throw 7; }
};

int main() {
    int caught = 0;
    for (int i = 0; i < 200; i++) {
        try {
            descend(9);
        } catch (const std::exception &e) {
            caught += e.what()[0] == 'f';
        }
        try {
            keep(new refuses);
        } catch (int seven) {
            caught += seven == 7;
        }
        static volatile size_t huge = SIZE_MAX / 4;
        try {
            keep(new char[huge]);
        } catch (const std::bad_alloc &) {
            caught++;
        }
    }
    CHECK(caught == 600);
    say("ok\n");
}
