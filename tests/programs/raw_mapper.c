// Maps anonymous memory with system calls and without a library function, so only the kernel knows of this
// memory. Prints the number of mapped bytes.
#include "pace.h"
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
    long bytes = 0;
    keep(malloc(100));
    for (struct pace p = pace_start(argc, argv, 3, 100); pace_next(&p);) {
        void *m = (void *)syscall(SYS_mmap, NULL, 131072L, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L);
        memset(keep(m), 1, 131072);
        bytes += 131072;
    }
    printf("%ld\n", bytes);
    fflush(stdout);
}
