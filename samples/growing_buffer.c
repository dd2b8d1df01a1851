// Appends lines to one log buffer and never writes the buffer out. The leak is one allocation that grows.
//
//#Expect: Leak in append_line
//#Expect: nothing else
#include "pace.h"

static char *buffer;
static size_t used, capacity;

NOINLINE void append_line(void) {
    if (used + 100 > capacity) {
        capacity += 1000;
        buffer = keep(realloc(buffer, capacity));
    }
    memset(buffer + used, 'x', 100);
    used += 100;
}

int main(int argc, char **argv) {
    struct pace p = pace_start(argc, argv, 5, 400);
    while (pace_next(&p)) append_line();
}
