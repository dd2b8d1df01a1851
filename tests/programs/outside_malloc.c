// Maps memory with mmap, without malloc.
#include "pace.h"
#include <sys/mman.h>

int main(int argc, char **argv) {
    keep(malloc(100));
    for (struct pace p = pace_start(argc, argv, 3, 100); pace_next(&p);) {
        void *m = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(keep(m), 1, 65536);
    }
}
