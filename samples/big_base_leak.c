// Loads a large table at the start. Later the function that loaded the table leaks slowly and steadily.
//
//#Expect: Leak in load_row
//#Expect: nothing else
#include "pace.h"

enum { ROWS = 20000 };
static void *table[ROWS];

NOINLINE void *load_row(void) { return keep(malloc(200)); }

int main(int argc, char **argv) {
    for (int i = 0; i < ROWS; i++) table[i] = load_row();
    struct pace p = pace_start(argc, argv, 5, 200);
    while (pace_next(&p)) load_row();
}
