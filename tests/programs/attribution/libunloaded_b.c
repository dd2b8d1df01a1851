// A plugin that the loader loads at the former address of libunloaded_a.so.
#include <stdlib.h>
#include <string.h>
void *innocent(void) {
    char *copy = malloc(16);
    return strcpy(copy, "nothing is kept");
}
