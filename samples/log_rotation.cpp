// Collects lines in two logs. When a log has 150 lines, the program drops the older log and begins a new log.
//
//#Expect: no leak
#include "pace.h"
#include <deque>

static std::deque<char *> current, previous;

NOINLINE char *make_line() { return static_cast<char *>(keep(malloc(80 + pace_random() % 80))); }

int main(int argc, char **argv) {
    pace p = pace_start(argc, argv, 6, 300);
    while (pace_next(&p)) {
        current.push_back(make_line());
        if (current.size() == 150) {
            for (char *line : previous) free(line);
            previous = std::move(current);
            current.clear();
        }
    }
}
