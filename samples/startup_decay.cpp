// Loads much data at the start, uses the data for a while and then frees the data piece by piece.
//
//#Expect: no leak
#include "pace.h"

enum { PIECES = 800 };
static char *pieces[PIECES];

NOINLINE char *load_piece() { return static_cast<char *>(keep(new char[500])); }

int main(int argc, char **argv) {
    for (auto &piece : pieces) piece = load_piece();
    pace p = pace_start(argc, argv, 5, 200);
    while (pace_next(&p))
        if (p.tick < PIECES) delete[] pieces[p.tick];
}
