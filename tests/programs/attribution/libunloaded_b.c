// Loaded at the address where libunloaded_a.so was.
#include <stdlib.h>
#include <string.h>
void *innocent(void) {
    char *copy = malloc(16);
    return strcpy(copy, "nothing is kept");
}
