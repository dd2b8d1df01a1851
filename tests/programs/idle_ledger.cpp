// Allocates in several threads without pause, and counts its allocations since the last reset in a ledger.
//
//   idle_ledger THREADS
//
// Reads one command per line. The program answers each command with the line `done`. Before this line,
// `print` writes the ledger:
//   go     the threads allocate, free and reallocate blocks that they share
//   pause  the threads wait
//   drain  the program frees every block, and the threads wait
//   reset  the ledger begins at zero, without the blocks that exist at this time
//   tick   the main thread allocates a block and frees it
//   print  writes the ledger as JSON
//
// Exactly one function calls each entry point, so a site of the trace equals one line of the ledger.
//
//#Build: -fno-builtin -Wno-unused-result
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <pthread.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))
#define KEEP(p) __asm__ volatile("" : "+r"(p) : : "memory")

enum site { MALLOC, LARGE, CALLOC, REALLOC, NEW, ALIGNED, SITES };
static const char *const NAMES[SITES] = {
    "site_malloc", "site_large", "site_calloc", "site_realloc", "site_new", "site_aligned",
};

NOINLINE void *site_malloc(size_t n) { void *p = malloc(n); KEEP(p); return p; }
NOINLINE void *site_large(size_t n) { void *p = malloc(n); KEEP(p); return p; }
NOINLINE void *site_calloc(size_t n) { void *p = calloc(1, n); KEEP(p); return p; }
NOINLINE void *site_realloc(void *old, size_t n) { void *p = realloc(old, n); KEEP(p); return p; }
NOINLINE void *site_new(size_t n) { void *p = operator new(n); KEEP(p); return p; }
NOINLINE void *site_aligned(size_t n) { void *p = nullptr; posix_memalign(&p, 64, n); KEEP(p); return p; }
NOINLINE void *site_tick(size_t n) { void *p = malloc(n); KEEP(p); return p; }

struct counts { uint64_t allocs, allocated_bytes, frees, freed_bytes; };

enum { MAX_THREADS = 64, SLOTS = 1024 };

struct worker {
    counts books[SITES];
    uint64_t state;
    pthread_t thread;
    uint32_t random() {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        return (uint32_t)(state >> 32);
    }
};
static worker workers[MAX_THREADS];

struct slot {
    std::atomic_flag lock;
    void *p;
    size_t size;
    site made_by;
    uint32_t epoch;
};
static slot slots[SLOTS];
static std::atomic<uint32_t> epoch{1};
static std::atomic<bool> runs{false};
static std::atomic<int> running{0};

// Frees or reallocates the block of a locked slot.
static void release(worker &w, slot &s) {
    if (s.epoch == epoch) w.books[s.made_by].frees++, w.books[s.made_by].freed_bytes += s.size;
    if (s.made_by == NEW) operator delete(s.p); else free(s.p);
    s.p = nullptr;
}

static void fill(worker &w, slot &s, site by, size_t size) {
    switch (by) {
    case MALLOC: s.p = site_malloc(size); break;
    case LARGE: s.p = site_large(size); break;
    case CALLOC: s.p = site_calloc(size); break;
    case REALLOC: s.p = site_realloc(nullptr, size); break;
    case NEW: s.p = site_new(size); break;
    default: s.p = site_aligned(size); break;
    }
    if (!s.p) abort();
    s.size = size, s.made_by = by, s.epoch = epoch;
    w.books[by].allocs++, w.books[by].allocated_bytes += size;
}

static void step(worker &w) {
    slot &s = slots[w.random() % SLOTS];
    if (s.lock.test_and_set(std::memory_order_acquire)) return;
    uint32_t r = w.random();
    size_t size = 16 + r % 600;
    if (!s.p) {
        site by = (site)(r / 600 % SITES);
        if (by == LARGE && r / 4096 % 8) by = MALLOC;
        fill(w, s, by, by == LARGE ? 32768 + r % 30000 : size);
    } else if (s.made_by != NEW && r % 4 == 0) {
        size_t old = s.size;
        site made_by = s.made_by;
        s.p = site_realloc(s.p, size);
        if (!s.p) abort();
        if (s.epoch == epoch) w.books[made_by].frees++, w.books[made_by].freed_bytes += old;
        s.size = size, s.made_by = REALLOC, s.epoch = epoch;
        w.books[REALLOC].allocs++, w.books[REALLOC].allocated_bytes += size;
    } else {
        release(w, s);
    }
    s.lock.clear(std::memory_order_release);
}

static void *work(void *argument) {
    worker &w = *(worker *)argument;
    for (;;) {
        while (!runs.load(std::memory_order_acquire)) usleep(200);
        running++;
        while (runs.load(std::memory_order_acquire))
            for (int i = 0; i < 64; i++) step(w);
        running--;
    }
    return nullptr;
}

static void pause_all() {
    runs = false;
    // A thread that has read the old value of `runs` adds 1 to `running` within 2 ms. The loop ends when no
    // thread runs any more (`running` is 0).
    do usleep(2000); while (running.load() != 0);
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    if (threads < 1 || threads > MAX_THREADS) return 2;
    static char out[1 << 12], in[1 << 12];
    setvbuf(stdout, out, _IOFBF, sizeof out);
    setvbuf(stdin, in, _IOFBF, sizeof in);
    for (int i = 0; i < threads; i++) {
        workers[i].state = 88172645463325252ull + 7919u * i;
        if (pthread_create(&workers[i].thread, nullptr, work, &workers[i])) return 2;
    }
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        if (!strcmp(line, "go\n")) {
            runs = true;
        } else if (!strcmp(line, "pause\n")) {
            pause_all();
        } else if (!strcmp(line, "drain\n")) {
            pause_all();
            for (slot &s : slots) if (s.p) release(workers[0], s);
        } else if (!strcmp(line, "reset\n")) {
            epoch++;
            for (worker &w : workers) memset(w.books, 0, sizeof w.books);
        } else if (!strcmp(line, "tick\n")) {
            free(site_tick(24));
        } else if (!strcmp(line, "print\n")) {
            for (int s = 0; s < SITES; s++) {
                counts sum = {};
                for (worker &w : workers) {
                    sum.allocs += w.books[s].allocs, sum.allocated_bytes += w.books[s].allocated_bytes;
                    sum.frees += w.books[s].frees, sum.freed_bytes += w.books[s].freed_bytes;
                }
                printf("{\"function\":\"%s\",\"allocs\":%llu,\"allocated_bytes\":%llu,\"frees\":%llu,"
                       "\"freed_bytes\":%llu}\n", NAMES[s], (unsigned long long)sum.allocs,
                       (unsigned long long)sum.allocated_bytes, (unsigned long long)sum.frees,
                       (unsigned long long)sum.freed_bytes);
            }
        } else {
            return 2;
        }
        printf("done\n");
        fflush(stdout);
    }
    _exit(0);
}
