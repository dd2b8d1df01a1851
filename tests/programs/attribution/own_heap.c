//#Expect: memory grows outside malloc
// A runtime with its own heap, as PHP has: the program maps its heap in chunks with mmap, and allocates only
// a table with malloc.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#define CHUNK (256 * 1024)
static char *chunk;
static size_t used = CHUNK;
__attribute__((noinline)) static void *heap_alloc(size_t n) {
    if (used + n > CHUNK) {
        chunk = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        used = 0;
    }
    void *p = chunk + used;
    used += n;
    return p;
}
int main(int argc, char **argv) {
    int n = atoi(argv[1]);
    char *table = malloc(1 << 20);
    memset(table, 1, 1 << 20);
    for (int i = 0; i < n; i++) {
        memset(heap_alloc(20000), i, 20000);
        free(malloc(100));
        usleep(10000);
    }
    printf("%d\n", table[n]);
    return 0;
}
