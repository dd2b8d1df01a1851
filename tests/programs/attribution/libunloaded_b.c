// A plugin that the loader places at the address where libunloaded_a.so was loaded before.
#include <stdlib.h>
#include <string.h>
void *innocent(void) {
    char *copy = malloc(16);
    return strcpy(copy, "nothing is kept");
}
