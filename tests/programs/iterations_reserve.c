/* Every tenth iteration maps 1 MiB more and keeps it. So forty iterations are too few for a verdict on the
   address space. Arguments: `reserve` (no page is ever used) or `use` (all pages are used). */
#include "edleak.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MIB = 1 << 20, ITERATIONS = 40 };

__attribute__((noinline)) static char *region(void) {
    /* The volatile variable keeps the call of mmap from becoming a jump. */
    char *volatile m =
        mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return m;
}

int main(int argc, char **argv) {
    int uses = argc > 1 && strcmp(argv[1], "use") == 0;
    void *volatile kept = malloc(1000);
    (void)kept;
    for (int i = 0; i <= ITERATIONS; i++) {
        edleak_mark("iteration");
        if (i % 10 == 5) {
            char *m = region();
            if (m == MAP_FAILED) return 1;
            if (uses) memset(m, 1, MIB);
        }
        usleep(40000); /* edleak reads /proc meanwhile */
    }
    return 0;
}
