// 64 KiB that stay and are written to, every ten milliseconds: live memory grows, and the process with it.
#include "pace.h"

int main(int argc, char **argv) {
    for (struct pace p = pace_start(argc, argv, 3, 100); pace_next(&p);) memset(keep(malloc(65536)), 1, 65536);
}
