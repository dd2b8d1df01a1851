// The demo: seven leaking functions, one for each allocation call, a cache, short-lived and start-up blocks.
//
// In each period, a recursive function calls the next leaking function, as edLeak's own test program does.
// The cache fills during the first fifth of the run and stays full: edleak must not report the cache.
//
//#Expect: Leak in leak_malloc
//#Expect: Leak in leak_calloc
//#Expect: Leak in leak_realloc
//#Expect: Leak in leak_posix_memalign
//#Expect: Leak in leak_memalign
//#Expect: Leak in leak_new
//#Expect: Leak in leak_new_array
//#Expect: nothing else
//#Run: --seconds 6
#include "pace.h"
#include <malloc.h>
#include <new>

// The exact totals of requested bytes and allocations of each function. edleak's totals must be equal.
struct ledger {
    const char *function;
    uint64_t allocs, allocated_bytes, frees, freed_bytes;
    void add(size_t size) { allocs++, allocated_bytes += size; }
    void sub(size_t size) { frees++, freed_bytes += size; }
};
enum { MALLOC, CALLOC, REALLOC, POSIX_MEMALIGN, MEMALIGN, NEW, NEW_ARRAY, LEAKS,
       CACHE = LEAKS, CHURN, STARTUP, ENTRIES };
static ledger books[ENTRIES] = {
    {"leak_malloc"}, {"leak_calloc"}, {"leak_realloc"}, {"leak_posix_memalign"}, {"leak_memalign"},
    {"leak_new"}, {"leak_new_array"}, {"cache_insert"}, {"churn"}, {"startup_table"},
};

extern "C" {
NOINLINE void leak_malloc() {
    keep(malloc(100));
    books[MALLOC].add(100);
}

NOINLINE void leak_calloc() {
    keep(calloc(3, 50));
    books[CALLOC].add(150);
}

// A buffer that realloc enlarges. realloc frees the small block, and the program never frees the large block.
NOINLINE void leak_realloc() {
    void *small = keep(malloc(20));
    books[REALLOC].add(20);
    keep(realloc(small, 200));
    books[REALLOC].sub(20);
    books[REALLOC].add(200);
}

NOINLINE void leak_posix_memalign() {
    void *p = nullptr;
    if (posix_memalign(&p, 64, 250) == 0) books[POSIX_MEMALIGN].add(250);
    keep(p);
}

NOINLINE void leak_memalign() {
    keep(memalign(32, 300));
    books[MEMALIGN].add(300);
}

NOINLINE void leak_new() {
    struct session { char state[350]; };
    keep(new session);
    books[NEW].add(sizeof(session));
}

NOINLINE void leak_new_array() {
    keep(new char[400]);
    books[NEW_ARRAY].add(400);
}

// The cache has CACHE_SLOTS entries. The program allocates each cache entry once and then reuses it.
enum { CACHE_SLOTS = 512, CACHE_ENTRY_BYTES = 1000 };
static void *cache[CACHE_SLOTS];

NOINLINE void cache_insert(unsigned slot) {
    cache[slot] = keep(malloc(CACHE_ENTRY_BYTES));
    books[CACHE].add(CACHE_ENTRY_BYTES);
}

static void cache_lookup(unsigned slot) {
    if (!cache[slot]) cache_insert(slot);
}

// Requests in progress: each request lives for a few periods.
enum { IN_FLIGHT = 16 };
static struct { void *p; size_t size; } in_flight[IN_FLIGHT];

NOINLINE void churn(long tick) {
    auto &slot = in_flight[tick % IN_FLIGHT];
    if (slot.p) {
        free(slot.p);
        books[CHURN].sub(slot.size);
    }
    slot.size = 64 + pace_random() % 1000;
    slot.p = keep(malloc(slot.size));
    books[CHURN].add(slot.size);
}

NOINLINE void startup_table() {
    keep(calloc(1024, 1024));
    books[STARTUP].add(1024 * 1024);
}

// Calls each leaking function from a different depth of recursion.
NOINLINE void descend(int levels) {
    static void (*const leaks[LEAKS])() = {leak_malloc,   leak_calloc, leak_realloc,  leak_posix_memalign,
                                           leak_memalign, leak_new,    leak_new_array};
    static int depth;
    if (levels > 0) {
        depth++;
        descend(levels - 1);
        depth--;
    } else {
        leaks[depth]();
    }
    __asm__ volatile("" ::: "memory"); // no tail call, so every level has a frame
}
}

static void print_ledger() {
    printf("{\"functions\":[\n");
    for (int i = 0; i < ENTRIES; i++)
        printf("{\"function\":\"%s\",\"allocs\":%lu,\"allocated_bytes\":%lu,\"frees\":%lu,"
               "\"freed_bytes\":%lu}%s\n",
               books[i].function, books[i].allocs, books[i].allocated_bytes, books[i].frees,
               books[i].freed_bytes,
               i + 1 < ENTRIES ? "," : "");
    printf("]}\n");
}

static const char USAGE[] =
    "usage: leaker [--period MS] [--seconds N] [--ledger]\n"
    "  --period MS   leak once every MS milliseconds, through seven functions in turn (10)\n"
    "  --seconds N   run for N seconds (8)\n"
    "  --ledger      print what each function allocated and freed, as JSON, at the end\n";

int main(int argc, char **argv) {
    double period_ms = 10, seconds = 8;
    bool wants_ledger = false;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--ledger")) wants_ledger = true;
        else if (!strcmp(argv[i], "--period") && i + 1 < argc) period_ms = atof(argv[++i]);
        else if (!strcmp(argv[i], "--seconds") && i + 1 < argc) seconds = atof(argv[++i]);
        else period_ms = 0;
    }
    if (!(period_ms > 0 && period_ms <= 60000 && seconds > 0)) {
        fputs(USAGE, stderr);
        return 2;
    }

    startup_table();
    // pace_start takes a whole number of ticks per second, but the demo's period may be any number of ms.
    pace p = pace_start(0, nullptr, 0, 1);
    p.period_ns = (long)(period_ms * 1e6);
    p.ticks = (long)(seconds * 1000 / period_ms);
    long filled = p.ticks / 5 + 1; // ticks until every cache slot has been used
    while (pace_next(&p)) {
        descend((int)(p.tick % LEAKS));
        churn(p.tick);
        long until = (p.tick + 1) * CACHE_SLOTS / filled;
        for (long key = p.tick * CACHE_SLOTS / filled; key < until; key++)
            cache_lookup((unsigned)(key % CACHE_SLOTS));
    }
    if (wants_ledger) print_ledger();
}
