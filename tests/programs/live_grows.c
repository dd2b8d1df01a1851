// Allocates and writes 64 KiB every 10 ms and frees nothing: live memory and the memory of the process grow.
#include "pace.h"

int main(int argc, char **argv) {
    for (struct pace p = pace_start(argc, argv, 3, 100); pace_next(&p);)
        memset(keep(malloc(65536)), 1, 65536);
}
