// `losses KIND`: makes edleak lose calls of one kind.
//   mappings     maps 70,000 pages while its parent, edleak-record, is stopped; the ring has 65,536 events
//   stacks       one allocation on each of 40,000 stacks; the table has 32,768
//   allocations  150 allocations of 1 MiB while the system refuses every further mapping
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))
static void *kept[150];
static volatile int after; // keeps every call from becoming a jump (a tail call)

static void map_pages(void) {
    kill(getppid(), SIGSTOP);
    for (int i = 0; i < 70000; i++) {
        void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page != MAP_FAILED) munmap(page, 4096);
    }
    kill(getppid(), SIGCONT);
}

static void descend(unsigned path, int depth);

#define STEP(n) \
    NOINLINE static void step_##n(unsigned path, int depth) { descend(path, depth), after += n; }
STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7) STEP(8)

static void (*const steps[8])(unsigned, int) = {
    step_1, step_2, step_3, step_4, step_5, step_6, step_7, step_8,
};

// One of eight functions at each of six levels: few frames, because the table of frames is limited, too.
NOINLINE static void descend(unsigned path, int depth) {
    if (depth == 0) {
        void *volatile allocation = malloc(16);
        free(allocation);
    } else {
        steps[path % 8](path / 8, depth - 1);
    }
    after++;
}

static void refuse_mappings(void) {
    // malloc takes these blocks from the program break, and keeps their address space after free.
    mallopt(M_MMAP_THRESHOLD, 1 << 28);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    mallopt(M_TOP_PAD, 200 << 20);
    free(kept[0] = malloc(1 << 20));
    struct rlimit now;
    getrlimit(RLIMIT_AS, &now);
    now.rlim_cur = 1 << 20;
    setrlimit(RLIMIT_AS, &now);
    for (int i = 0; i < 150; i++) kept[i] = malloc(1 << 20);
}

int main(int argc, char **argv) {
    const char *kind = argc > 1 ? argv[1] : "";
    if (!strcmp(kind, "mappings")) map_pages();
    if (!strcmp(kind, "stacks"))
        for (unsigned path = 0; path < 40000; path++) descend(path, 6);
    if (!strcmp(kind, "allocations")) refuse_mappings();
    usleep(500000); // many slices
    printf("%d\n", kept[149] != NULL);
    return 0;
}
