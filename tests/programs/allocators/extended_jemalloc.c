// A C program with jemalloc linked in. The program calls functions that malloc libraries usually lack:
// allocation with flags, resizing in place, and frees that pass the size.
//
//   extended_jemalloc ROUNDS
//
//#Build: -fno-builtin -l:libjemalloc.a -ldl -lm -lstdc++
#include <jemalloc/jemalloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOINLINE __attribute__((noinline, noclone))
#define KEEP(p) __asm__ volatile("" : "+r"(p) : : "memory")

NOINLINE void *site_mallocx(size_t n, int flags) { void *p = mallocx(n, flags); KEEP(p); return p; }
NOINLINE void *site_rallocx(void *old, size_t n, int flags) {
    void *p = rallocx(old, n, flags);
    KEEP(p);
    return p;
}
NOINLINE size_t site_xallocx(void *old, size_t n, size_t extra) {
    size_t got = xallocx(old, n, extra, 0);
    KEEP(got);
    return got;
}

enum { MALLOCX, RALLOCX, XALLOCX, SITES };
static const char *const NAMES[SITES] = {"site_mallocx", "site_rallocx", "site_xallocx"};
static uint64_t books[SITES][4];
static struct { unsigned char *p; size_t size; int site, flags; } slots[512];

static void add(unsigned slot, int site, size_t n) {
    books[site][0]++, books[site][1] += n;
    slots[slot].site = site, slots[slot].size = n;
    memset(slots[slot].p, (unsigned char)slot, n);
}
static void sub(unsigned slot) {
    books[slots[slot].site][2]++, books[slots[slot].site][3] += slots[slot].size;
}

int main(int argc, char **argv) {
    uint64_t state = 88172645463325252ull;
    long rounds = argc > 1 ? atol(argv[1]) : 1000;
    unsigned in_place = 0;
    for (long i = 0; i < rounds; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        unsigned slot = state % 512, how = (state >> 20) % 8;
        size_t n = 1 + ((state >> 32) % 8 ? (state >> 40) % 200 : (state >> 40) % 300000);
        if (!slots[slot].p) {
            const int choices[4] = {0, MALLOCX_ALIGN(64), MALLOCX_ZERO,
                                    MALLOCX_ALIGN(4096) | MALLOCX_ZERO | MALLOCX_TCACHE_NONE};
            int flags = slots[slot].flags = choices[how % 4];
            unsigned char *p = slots[slot].p = site_mallocx(n, flags);
            if (!p) return fprintf(stderr, "mallocx failed\n"), 9;
            if (flags & MALLOCX_ZERO)
                for (size_t j = 0; j < n; j++)
                    if (p[j]) return fprintf(stderr, "mallocx's memory is not zero\n"), 9;
            if ((how % 4 == 1 && (uintptr_t)p % 64) || (how % 4 == 3 && (uintptr_t)p % 4096))
                return fprintf(stderr, "not aligned\n"), 9;
            add(slot, MALLOCX, n);
            continue;
        }
        for (size_t j = 0; j < slots[slot].size; j++)
            if (slots[slot].p[j] != (unsigned char)slot)
                return fprintf(stderr, "slot %u was overwritten\n", slot), 9;
        size_t extra = how % 2 ? 5000 : 0;
        switch (how) {
        case 0: case 1:
            if (site_xallocx(slots[slot].p, n, extra) >= n) {
                size_t got = sallocx(slots[slot].p, 0);
                sub(slot), add(slot, XALLOCX, got < n + extra ? got : n + extra);
                in_place++;
            }
            break;
        case 2: case 3:
            sub(slot);
            slots[slot].p = site_rallocx(slots[slot].p, n, 0), slots[slot].flags = 0;
            if (!slots[slot].p) return fprintf(stderr, "rallocx failed\n"), 9;
            add(slot, RALLOCX, n);
            break;
        case 4:
            if (rallocx(slots[slot].p, (size_t)1 << 62, 0))
                return fprintf(stderr, "an impossible rallocx succeeded\n"), 9;
            break;
        default:
            sub(slot);
            if (how == 5) free(slots[slot].p);
            // After xallocx the size class of the block is unknown, so the block is freed without a size.
            else if (how == 6 || slots[slot].site == XALLOCX) dallocx(slots[slot].p, slots[slot].flags);
            else sdallocx(slots[slot].p, slots[slot].size, slots[slot].flags & ~MALLOCX_ZERO);
            slots[slot].p = NULL;
        }
    }
    if (!in_place) return fprintf(stderr, "xallocx never resized in place\n"), 9;
    for (int i = 0; i < SITES; i++)
        printf("{\"function\":\"%s\",\"allocs\":%lu,\"allocated_bytes\":%lu,\"frees\":%lu,"
               "\"freed_bytes\":%lu}\n",
               NAMES[i], books[i][0], books[i][1], books[i][2], books[i][3]);
}
