// Takes objects from a free list, and allocates only if the list is empty. The number of objects in use
// varies, but stays below a limit.
//
//#Expect: no leak
#include "pace.h"
#include <vector>

struct object { char data[300]; };
static std::vector<object *> idle, busy;

NOINLINE object *take() {
    if (idle.empty()) return static_cast<object *>(keep(new object));
    object *o = idle.back();
    idle.pop_back();
    return o;
}

int main(int argc, char **argv) {
    idle.reserve(64);
    busy.reserve(64);
    pace p = pace_start(argc, argv, 5, 300);
    while (pace_next(&p)) {
        if (busy.size() < pace_random() % 40) {
            busy.push_back(take());
        } else if (!busy.empty()) {
            idle.push_back(busy.back());
            busy.pop_back();
        }
    }
}
