// The program's first allocations must get an unused heap, as without edleak: blocks that are zero and
// adjacent. Otherwise, a program that reads uninitialized memory would behave differently under edleak.
#include "check.h"

int main(void) {
    char *blocks[60];
    for (int i = 0; i < 60; i++) {
        size_t size = 24 + 16 * (size_t)i;
        blocks[i] = malloc(size);
        CHECK(blocks[i]);
        for (size_t n = 0; n < size; n++) CHECK(blocks[i][n] == 0);
    }
    for (int i = 1; i < 60; i++) {
        char line[64];
        snprintf(line, sizeof line, "%td\n", blocks[i] - blocks[i - 1]);
        say(line);
    }
    for (int i = 0; i < 60; i++) free(blocks[i]);
}
