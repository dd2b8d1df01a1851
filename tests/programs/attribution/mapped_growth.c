//#Expect: memory grows outside malloc
// A video pipeline: 3.2 MB of live tables, many short-lived mallocs, and in each tick a mapping that is kept.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
static long mapped;
__attribute__((noinline)) void *map_frame(size_t n) {
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(p, 1, n); mapped += n;
    return p;
}
__attribute__((noinline)) char *request(int k) { char *r = malloc(20000); memset(r, k, 20000); return r; }
int main(int argc, char **argv) {
    int seconds = atoi(argv[1]); size_t frame = 16384;
    char *table[32];
    for (int i = 0; i < 32; i++) { // 3.2 MB, live to the end
        table[i] = malloc(100000);
        memset(table[i], i, 100000);
    }
    for (int i = 0; i < seconds * 50; i++) {
        for (int k = 0; k < 10; k++) free(request(k));   // one block at a time, so there is no fragmentation
        map_frame(frame);                     // never unmapped
        usleep(20000);
    }
    printf("ledger: %ld bytes mapped and never unmapped; malloc: 3200000 live from the start, "
           "nothing else kept\n",
           mapped);
    return table[3][5] == 77;
}
