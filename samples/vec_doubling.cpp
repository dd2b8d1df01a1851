// The vector doubles until it holds 600 items; then the program reuses it. So the curve of the live bytes has
// larger and rarer steps, and at the end no more steps.
//
//#Expect: no leak
#include "pace.h"
#include <vector>

struct item { char data[64]; };
static std::vector<item> items;

NOINLINE void add_item() { items.push_back(item()); }

int main(int argc, char **argv) {
    pace p = pace_start(argc, argv, 6, 200);
    while (pace_next(&p)) {
        if (items.size() == 600) items.clear();
        add_item();
    }
}
