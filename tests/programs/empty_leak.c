// Leaks more and more allocations of size 0, for which malloc uses more and more memory.
#include <stdlib.h>
#include <unistd.h>

static void *volatile kept;
__attribute__((noinline)) void leak_empty(void) { kept = malloc(0); }
__attribute__((noinline)) void serve(void) { free(malloc(10)); }

int main(void) {
    for (int i = 0; i < 400; i++) {
        for (int j = 0; j < 100; j++) leak_empty();
        serve();
        usleep(5000);
    }
    return 0;
}
