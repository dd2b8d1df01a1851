// Duplicates a path for every lookup. libc makes the allocation, and the caller never frees the copy.
//
//#Expect: Leak in look_up
//#Expect: nothing else
#include "pace.h"

NOINLINE void look_up(const char *path) { keep(strdup(path)); }

int main(int argc, char **argv) {
    struct pace p = pace_start(argc, argv, 5, 200);
    while (pace_next(&p)) look_up("/usr/share/zoneinfo/Europe/Zurich");
}
