// A plugin that leaks and is unloaded.
#include <stdlib.h>
#include <string.h>
void *leaky(void) {
    char *kept = malloc(1000);
    return memset(kept, 1, 1000);
}
