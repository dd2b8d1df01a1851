// Makes random objects of several pools, and prints its own counts as JSON for a comparison with the trace.
//
//   pools THREADS OPERATIONS [SEED] [wait]
//
// With `wait`, the program begins its work only after a test has attached to it.
//
// Each kind of object has one function that allocates it, so each site in the trace is one line of the
// ledger. The first object of a chunk has the same address as the chunk. The chunk of each pool is an object
// of a parent pool. Pools are locked, and any thread may free any object. Each operation makes at most two
// events, except a reset, which makes more.
#include "attach_wait.h"
#include <edleak.h>

#include <atomic>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>
#include <pthread.h>
#include <vector>

#define NOINLINE __attribute__((noinline, noclone))
#define KEEP(p) __asm__ volatile("" : "+r"(p) : : "memory")

enum site { PLAIN, INLINED, MADE, STATIC, CHUNK, SITES };
static const char *const NAMES[SITES] = {
    "site_plain", "site_inlined", "site_made", "site_static", "site_chunk",
};

struct counts { std::atomic<uint64_t> allocs, allocated_bytes, frees, freed_bytes; };
static counts books[SITES];

struct object { site of; uint32_t size; };

class pool {
public:
    enum { CELLS = 512, CELL = 64 };

    pool(const char *name, char *memory) : chunk(memory), live(CELLS) {
        edleak_pool_name(this, name);
        for (int cell = CELLS - 1; cell >= 0; cell--) vacant.push_back(cell);
    }

    // The event is made under the lock, because any thread may free any cell, even a cell that this function
    // has not returned yet.
    NOINLINE void *take(site of, uint32_t size) {
        std::lock_guard<std::mutex> guard(lock);
        void *p = cell_for(of, size);
        edleak_pool_alloc(this, p, size);
        return p;
    }

    __attribute__((always_inline)) inline void *take_inline(site of, uint32_t size) {
        std::lock_guard<std::mutex> guard(lock);
        void *p = cell_for(of, size);
        edleak_pool_alloc(this, p, size);
        return p;
    }

    template <class T> NOINLINE T *make() {
        std::lock_guard<std::mutex> guard(lock);
        void *p = cell_for(MADE, sizeof(T));
        edleak_pool_alloc(this, p, sizeof(T));
        return p ? new (p) T() : nullptr;
    }

    NOINLINE void give_back(void *p) {
        std::lock_guard<std::mutex> guard(lock);
        int cell = (int)((char *)p - chunk) / CELL;
        if (!live[cell].size) return; // another thread has reset the pool
        edleak_pool_free(this, p);
        count_free(cell);
        vacant.push_back(cell);
    }

    NOINLINE void reset() {
        std::lock_guard<std::mutex> guard(lock);
        edleak_pool_reset(this);
        for (int cell = 0; cell < CELLS; cell++)
            if (live[cell].size) { count_free(cell); vacant.push_back(cell); }
    }

    void *at(int cell) { return chunk + cell * CELL; }

    std::mutex lock;
    void *cell_for(site of, uint32_t size) {
        if (vacant.empty()) return nullptr;
        int cell = vacant.back();
        vacant.pop_back();
        live[cell] = { of, size };
        books[of].allocs++;
        books[of].allocated_bytes += size;
        return at(cell);
    }

private:
    void count_free(int cell) {
        books[live[cell].of].frees++;
        books[live[cell].of].freed_bytes += live[cell].size;
        live[cell].size = 0;
    }

    char *chunk;
    std::vector<int> vacant;
    std::vector<object> live;
};

struct record { char bytes[40]; };

NOINLINE void *site_plain(pool *p, uint32_t size) { void *q = p->take(PLAIN, size); KEEP(q); return q; }
NOINLINE void *site_inlined(pool *p, uint32_t size) {
    void *q = p->take_inline(INLINED, size);
    KEEP(q);
    return q;
}
NOINLINE void *site_made(pool *p) { void *q = p->make<record>(); KEEP(q); return q; }
static NOINLINE void *static_take(pool *p, uint32_t size) {
    std::lock_guard<std::mutex> guard(p->lock);
    void *q = p->cell_for(STATIC, size);
    edleak_pool_alloc(p, q, size);
    return q;
}
NOINLINE void *site_static(pool *p, uint32_t size) { void *q = static_take(p, size); KEEP(q); return q; }
// The chunk of a nested pool is an object of its parent pool, which exists longer than the nested pool.
static NOINLINE char *chunk_take(void *parent) {
    char *chunk = (char *)malloc(pool::CELLS * pool::CELL);
    edleak_pool_alloc(parent, chunk, pool::CELLS * pool::CELL);
    return chunk;
}
NOINLINE char *site_chunk(void *parent) {
    char *chunk = chunk_take(parent);
    KEEP(chunk);
    books[CHUNK].allocs++;
    books[CHUNK].allocated_bytes += pool::CELLS * pool::CELL;
    return chunk;
}

enum { POOLS = 4 };
static pool *pools[POOLS];
static char parent; // the address of this variable identifies the parent pool

struct worker { uint64_t state, operations; pthread_t thread; };
static uint32_t below(worker *w, uint32_t limit) {
    w->state = w->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(w->state >> 33) % limit;
}

static void *work(void *argument) {
    worker *w = (worker *)argument;
    for (uint64_t i = 0; i < w->operations; i++) {
        pool *p = pools[below(w, POOLS)];
        uint32_t size = 1 + below(w, pool::CELL);
        switch (below(w, 9)) {
        case 0: case 1: site_plain(p, size); break;
        case 2: site_inlined(p, size); break;
        case 3: site_made(p); break;
        case 4: site_static(p, size); break;
        case 5: case 6: case 7: p->give_back(p->at((int)below(w, pool::CELLS))); break;
        case 8: if (below(w, 400) == 0) p->reset(); break;
        }
    }
    return nullptr;
}

int main(int argc, char **argv) {
    uint32_t threads = argc > 1 ? (uint32_t)atoi(argv[1]) : 1;
    uint64_t operations = argc > 2 ? strtoull(argv[2], nullptr, 10) : 1000,
             seed = argc > 3 ? strtoull(argv[3], nullptr, 10) : 1;
    wait_for_recording(argc, argv);
    edleak_pool_name(&parent, "chunks");
    for (int i = 0; i < POOLS; i++) {
        char name[] = "pool 0";
        name[5] = (char)('0' + i / 2); // two pools have the same name
        pools[i] = new pool(name, site_chunk(&parent));
    }
    std::vector<worker> workers(threads);
    for (uint32_t i = 0; i < threads; i++) {
        workers[i] = { seed * 1000 + i, operations / threads, {} };
        pthread_create(&workers[i].thread, nullptr, work, &workers[i]);
    }
    for (worker &w : workers) pthread_join(w.thread, nullptr);
    for (int s = 0; s < SITES; s++)
        printf("{\"function\":\"%s\",\"allocs\":%" PRIu64 ",\"allocated_bytes\":%" PRIu64
               ",\"frees\":%" PRIu64 ",\"freed_bytes\":%" PRIu64 "}\n",
               NAMES[s], books[s].allocs.load(), books[s].allocated_bytes.load(), books[s].frees.load(),
               books[s].freed_bytes.load());
}
