// `iterations KIND COUNT [SIZE [PERIOD]]` runs COUNT iterations of one kind, with a mark before each.
//
// For each mark, the program prints the bytes and the number of allocations that its iterations have left
// live so far, by the program's own count (as JSON). The kinds differ in the memory that an iteration leaves
// behind. tests/tests/marks.rs records this program.
#include <edleak.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#define NOINLINE __attribute__((noinline, noclone))

namespace {

size_t size = 1024, period = 10;
// The program's own count of the bytes and of the allocations that its iterations have left live.
size_t held_bytes, held_count;

void *keep(void *p) {
    asm volatile("" : "+r"(p) : : "memory");
    return p;
}

uint32_t random_number() {
    static uint64_t state = 0x9e3779b97f4a7c15u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return static_cast<uint32_t>(state >> 32);
}

NOINLINE void *allocate(size_t bytes) {
    held_bytes += bytes, held_count++;
    return keep(malloc(bytes));
}

void release(void *p, size_t bytes) {
    held_bytes -= bytes, held_count--;
    free(p);
}

// Every iteration leaves one allocation behind.
void each(size_t) { allocate(size); }

// One of every `period` iterations leaves one allocation behind.
void periodic(size_t n) {
    if (n % period == 0) allocate(size);
}

// One iteration in three, at random, leaves one allocation behind.
void random_third(size_t) {
    if (random_number() % 3 == 0) allocate(size);
}

// Fills a cache of `period` entries at random keys. All entries stay.
void cache(size_t) {
    static std::vector<void *> entries(period);
    void *&entry = entries[random_number() % period];
    if (entry == nullptr) entry = allocate(size);
}

// Keeps the last `period` results and frees older results.
void history(size_t n) {
    static std::vector<void *> entries(period);
    void *&entry = entries[n % period];
    if (entry != nullptr) release(entry, size);
    entry = allocate(size);
}

// Keeps requests until `period` requests wait, and then frees all requests.
void queue(size_t n) {
    static std::vector<void *> waiting;
    if (waiting.capacity() < period) waiting.reserve(period);
    waiting.push_back(allocate(size));
    if (n % period == 0) {
        for (void *one : waiting) release(one, size);
        waiting.clear();
    }
}

// Adds eight bytes to a vector. When the vector is full, the vector doubles its capacity.
void vector(size_t n) {
    static std::vector<uint64_t> all;
    all.push_back(n);
    held_bytes = all.capacity() * sizeof(uint64_t), held_count = 1;
}

// Empties and refills one vector in each iteration. The vector reuses its memory, so nothing leaks.
void reused_vector(size_t n) {
    static std::vector<uint64_t> all;
    all.clear();
    for (size_t i = 0; i < 10 + n % 50; i++) all.push_back(i);
    held_bytes = all.capacity() * sizeof(uint64_t), held_count = 1;
}

// Appends to a buffer, which realloc makes larger.
void realloc_growth(size_t) {
    static void *buffer;
    buffer = keep(realloc(buffer, held_bytes += size));
    held_count = 1;
}

// A second thread leaks one allocation, and ends before the iteration ends.
void thread(size_t) {
    std::thread([] { allocate(size); }).join();
}

// Each of the first `period` iterations leaves an allocation behind; later iterations leave none.
void warm_up(size_t n) {
    if (n <= period) allocate(size);
}

// Every iteration frees all its memory.
void nothing(size_t n) {
    void *first = allocate(size), *second = allocate(size + n % 100);
    release(first, size);
    release(second, size + n % 100);
}

const struct {
    const char *name;
    void (*iteration)(size_t);
} kinds[] = {
    {"each", each},
    {"periodic", periodic},
    {"random", random_third},
    {"cache", cache},
    {"history", history},
    {"queue", queue},
    {"vector", vector},
    {"reused_vector", reused_vector},
    {"realloc", realloc_growth},
    {"thread", thread},
    {"warm_up", warm_up},
    {"nothing", nothing},
};

} // namespace

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    const size_t iterations = strtoul(argv[2], nullptr, 10);
    if (argc > 3) size = strtoul(argv[3], nullptr, 10);
    if (argc > 4) period = strtoul(argv[4], nullptr, 10);
    std::vector<std::pair<size_t, size_t>> ledger;
    ledger.reserve(iterations + 1);
    for (const auto &kind : kinds) {
        if (strcmp(kind.name, argv[1]) != 0) continue;
        for (size_t n = 1; n <= iterations; n++) {
            edleak_mark("iteration");
            ledger.emplace_back(held_bytes, held_count);
            kind.iteration(n);
        }
        edleak_mark("iteration");
        ledger.emplace_back(held_bytes, held_count);
        std::string text = "[";
        for (const auto &[bytes, count] : ledger)
            text += "[" + std::to_string(bytes) + "," + std::to_string(count) + "],";
        text.back() = ']';
        puts(text.c_str());
        return 0;
    }
    return 2;
}
