// Allocates in turn from libc and from a library with its own allocator. Prints the counts of each allocator.
//
//   private_library ROUNDS [wait]
//
// With `wait`, the program begins its work only after a test has attached to it.
//
//#Build: -fno-builtin $OUT/libprivate.so -Wl,-rpath,$OUT
#include "../attach_wait.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *private_malloc(size_t size);
void *private_calloc(size_t count, size_t size);
void *private_realloc(void *old, size_t size);
void *private_aligned(size_t align, size_t size);
void private_free(void *allocation);
void private_free_sized(void *allocation, size_t size);

#define NOINLINE __attribute__((noinline, noclone))
#define KEEP(p) __asm__ volatile("" : "+r"(p) : : "memory")

NOINLINE void *site_libc(size_t n) { void *p = malloc(n); KEEP(p); return p; }

enum { LIBC, PRIVATE_MALLOC, PRIVATE_CALLOC, PRIVATE_REALLOC, PRIVATE_ALIGNED, SITES };
// The callers of the library's allocator are functions of the library.
static const char *const NAMES[SITES] = {
    "site_libc", "private_malloc", "private_calloc", "private_realloc", "private_aligned",
};
static uint64_t books[SITES][4];
static struct { unsigned char *p; size_t size; int site; } slots[1024];

int main(int argc, char **argv) {
    wait_for_recording(argc, argv);
    uint64_t state = 88172645463325252ull;
    long rounds = argc > 1 ? atol(argv[1]) : 1000;
    for (long i = 0; i < rounds; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        unsigned slot = state % 1024, how = (state >> 20) % 7;
        size_t n = (state >> 32) % 64 ? (state >> 40) % 200 : (state >> 40) % 100000;
        if (slots[slot].p) {
            for (size_t j = 0; j < slots[slot].size; j++)
                if (slots[slot].p[j] != (unsigned char)slot)
                    return fprintf(stderr, "slot %u was overwritten\n", slot), 9;
            uint64_t *book = books[slots[slot].site];
            book[2]++, book[3] += slots[slot].size;
            if (slots[slot].site == LIBC) free(slots[slot].p);
            else if (how == 0 && slots[slot].site != PRIVATE_ALIGNED && slots[slot].size) {
                slots[slot].p = private_realloc(slots[slot].p, n + 1), slots[slot].size = n + 1,
                slots[slot].site = PRIVATE_REALLOC;
                memset(slots[slot].p, (unsigned char)slot, n + 1);
                books[PRIVATE_REALLOC][0]++, books[PRIVATE_REALLOC][1] += n + 1;
                continue;
            } else if (how == 1 && slots[slot].site == PRIVATE_MALLOC && slots[slot].size)
                private_free_sized(slots[slot].p, slots[slot].size);
            else private_free(slots[slot].p);
            slots[slot].p = NULL;
            continue;
        }
        int site = how % SITES;
        if (site == PRIVATE_REALLOC) site = PRIVATE_MALLOC;
        void *p = site == LIBC             ? site_libc(n)
                  : site == PRIVATE_MALLOC ? private_malloc(n)
                  : site == PRIVATE_CALLOC ? private_calloc(1, n)
                                           : private_aligned(64, n += n == 0);
        if (!p) return fprintf(stderr, "an allocation failed\n"), 9;
        memset(p, (unsigned char)slot, n);
        slots[slot].p = p, slots[slot].size = n, slots[slot].site = site;
        books[site][0]++, books[site][1] += n;
    }
    for (int i = 0; i < SITES; i++)
        printf("{\"function\":\"%s\",\"allocs\":%lu,\"allocated_bytes\":%lu,\"frees\":%lu,"
               "\"freed_bytes\":%lu}\n",
               NAMES[i], books[i][0], books[i][1], books[i][2], books[i][3]);
}
