// Iterations of one kind between marks: iterations KIND COUNT [SIZE [PERIOD]]
//
// For each mark, the program prints what the function of this kind holds by its own count: one JSON object a line. The
// kinds differ in what an iteration leaves behind; see tests/tests/marks.rs.
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
// What the function under test holds.
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

// One iteration in `period` does.
void periodic(size_t n) {
    if (n % period == 0) allocate(size);
}

// One iteration in three does, at random.
void random_third(size_t) {
    if (random_number() % 3 == 0) allocate(size);
}

// `period` entries with keys at random; all stay.
void cache(size_t) {
    static std::vector<void *> entries(period);
    void *&entry = entries[random_number() % period];
    if (entry == nullptr) entry = allocate(size);
}

// The last `period` results stay, older ones go.
void history(size_t n) {
    static std::vector<void *> entries(period);
    void *&entry = entries[n % period];
    if (entry != nullptr) release(entry, size);
    entry = allocate(size);
}

// Work in batches: `period` requests wait, then all are done.
void queue(size_t n) {
    static std::vector<void *> waiting;
    if (waiting.capacity() < period) waiting.reserve(period);
    waiting.push_back(allocate(size));
    if (n % period == 0) {
        for (void *one : waiting) release(one, size);
        waiting.clear();
    }
}

// Eight bytes more in a vector that doubles.
void vector(size_t n) {
    static std::vector<uint64_t> all;
    all.push_back(n);
    held_bytes = all.capacity() * sizeof(uint64_t), held_count = 1;
}

// The same, emptied after each iteration: its capacity stays.
void reused_vector(size_t n) {
    static std::vector<uint64_t> all;
    all.clear();
    for (size_t i = 0; i < 10 + n % 50; i++) all.push_back(i);
    held_bytes = all.capacity() * sizeof(uint64_t), held_count = 1;
}

// A buffer that is appended to.
void realloc_growth(size_t) {
    static void *buffer;
    buffer = keep(realloc(buffer, held_bytes += size));
    held_count = 1;
}

// A second thread leaks, and ends before the iteration does.
void thread(size_t) {
    std::thread([] { allocate(size); }).join();
}

// The first iterations leave something behind.
void warm_up(size_t n) {
    if (n <= period) allocate(size);
}

// All is freed.
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
