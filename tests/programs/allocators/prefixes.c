// One small allocator under the names of every private allocator that edleak knows, and under `my_*`, which
// the option --allocator adds. The program counts its allocations by prefix and prints these counts as JSON.
//
//   prefixes OPERATIONS
//
// tests/tests/allocators.rs compares these counts with the trace.
//#Build: -O1
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define NOINLINE __attribute__((noinline, noclone))

// The allocator: a header of 16 bytes before each block, and a list of free blocks for each power of two.
struct block { size_t class; struct block *next; };
static struct block *free_blocks[40];

static void *get(size_t size) {
    size_t class = 5;
    while (((size_t)1 << class) < size) class++;
    struct block *block = free_blocks[class];
    if (block) free_blocks[class] = block->next;
    else {
        static char *at, *end;
        size_t bytes = sizeof *block + ((size_t)1 << class);
        if (bytes > (size_t)(end - at)) {
            at = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (at == MAP_FAILED) return NULL;
            end = at + (4 << 20);
        }
        block = (struct block *)at;
        at += bytes;
    }
    block->class = class;
    return block + 1;
}
static void put(void *p) {
    if (!p) return;
    struct block *block = (struct block *)p - 1;
    // Because of this call into another module, edleak knows that a hook may change caller-saved registers.
    if (block->class >= 40) abort();
    block->next = free_blocks[block->class];
    free_blocks[block->class] = block;
}
static void *get_zeroed(size_t count, size_t size) {
    void *p = get(count * size);
    return p ? memset(p, 0, count * size) : NULL;
}
static void *get_larger(void *old, size_t size) {
    void *p = get(size);
    if (p && old) {
        size_t had = (size_t)1 << ((struct block *)old - 1)->class;
        memcpy(p, old, had < size ? had : size);
        put(old);
    }
    return p;
}

enum { HELD = 64 };
struct book { uint64_t allocs, allocated_bytes, frees, freed_bytes; };
static uint64_t state = 42;
static uint64_t below(uint64_t limit) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % limit;
}

#define EACH(X) \
    X(rp) X(sn_) X(__sn_) X(scalloc_) X(scudo_) X(scalable_) X(duckdb_je_) \
    X(je_arrow_) X(je_) X(_rjem_) X(mi_) X(tc_) X(xx) X(my_)

// The empty assembly code after a call keeps the compiler from turning the call into a jump.
#define ALLOCATOR(prefix) \
    NOINLINE void *prefix##malloc(size_t n) { void *p = get(n); __asm__ volatile("" : "+r"(p)); return p; } \
    NOINLINE void *prefix##calloc(size_t c, size_t n) { \
        void *p = get_zeroed(c, n); \
        __asm__ volatile("" : "+r"(p)); \
        return p; \
    } \
    NOINLINE void *prefix##realloc(void *o, size_t n) { \
        void *p = get_larger(o, n); \
        __asm__ volatile("" : "+r"(p)); \
        return p; \
    } \
    NOINLINE void prefix##free(void *p) { put(p); __asm__ volatile(""); } \
    static struct book prefix##book; \
    NOINLINE static void *prefix##site(int way, void *old, size_t n) { \
        void *p = way == 0 ? prefix##malloc(n) : way == 1 ? prefix##calloc(n / 8, 8) \
                                                     : prefix##realloc(old, n); \
        __asm__ volatile("" : "+r"(p)); \
        return p; \
    } \
    static void prefix##work(long operations) { \
        static void *held[HELD]; \
        static size_t sizes[HELD]; \
        for (long i = 0; i < operations; i++) { \
            int at = below(HELD), way = below(3); \
            size_t n = 8 * (4 + below(200)); \
            if (way < 2 && held[at]) prefix##free(held[at]); \
            if (held[at]) prefix##book.frees++, prefix##book.freed_bytes += sizes[at]; \
            held[at] = prefix##site(way, held[at], n); \
            if (!held[at]) exit(99); \
            sizes[at] = n; \
            prefix##book.allocs++, prefix##book.allocated_bytes += n; \
        } \
    }
EACH(ALLOCATOR)

#define WORK(prefix) prefix##work(operations);
#define PRINT(prefix) \
    printf("{\"function\":\"" #prefix "site\",\"allocs\":%lu,\"allocated_bytes\":%lu,\"frees\":%lu," \
           "\"freed_bytes\":%lu}\n", \
           prefix##book.allocs, prefix##book.allocated_bytes, prefix##book.frees, prefix##book.freed_bytes);

int main(int argc, char **argv) {
    long operations = argc > 1 ? atol(argv[1]) : 10000;
    EACH(WORK)
    EACH(PRINT)
    return 0;
}
