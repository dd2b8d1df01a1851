// Makes random calls of mmap, munmap, mremap, shmat and madvise, also with MAP_FIXED. Counts its calls in a
// ledger and prints the ledger as JSON. The tests compare the ledger with the trace.
//
//   mappings THREADS OPERATIONS [SEED] [wait]
//
// With `wait`, the program begins its work only after a test has attached to it. The program then also unmaps
// ranges that it mapped before the attach, which the ledger does not contain.
//
// Exactly one function makes each kind of call, so each site of the trace equals one line of the ledger. The
// ledger is a list of pages, each with its function and its call. The threads share the ledger under a lock,
// so one thread may unmap a range that another thread mapped. Where possible, a thread calls mmap and the
// other functions without holding the lock. At the end, nearly all mappings still exist.
//
//#Build: -O1
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <pthread.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <vector>
#include "attach_wait.h"

#define NOINLINE __attribute__((noinline, noclone))
// Uses the result of the call before KEEP, so that the compiler does not turn this call into a jump.
#define KEEP(p) __asm__ volatile("" : "+r"(p) : : "memory")

enum site { MMAP, MMAP64, FIXED, MREMAP, SHMAT, SITES };
static const char *const NAMES[SITES] = {
    "site_mmap", "site_mmap64", "site_fixed", "site_mremap", "site_shmat",
};
static const uintptr_t PAGE = 4096;

struct counts { uint64_t allocs, allocated_bytes, frees, freed_bytes, given_back_calls, given_back_bytes; };
static counts books[SITES];
struct page { int site; uint64_t call; };
static std::map<uintptr_t, page> pages;          // by page number
static std::map<uint64_t, uint64_t> left;        // for each call: number of its pages that are still mapped
static uint64_t calls;
static std::mutex lock;

static void forget(uintptr_t first, size_t count) {
    for (uintptr_t p = first; p < first + count; p++) {
        auto found = pages.find(p);
        if (found == pages.end()) continue;
        counts &of = books[found->second.site];
        of.freed_bytes += PAGE;
        if (--left[found->second.call] == 0) { of.frees++; left.erase(found->second.call); }
        pages.erase(found);
    }
}
static void remember(int site, uintptr_t first, size_t count) {
    forget(first, count);
    calls++;
    for (uintptr_t p = first; p < first + count; p++) pages[p] = { site, calls };
    left[calls] = count;
    books[site].allocs++;
    books[site].allocated_bytes += count * PAGE;
}

// Counts in the ledger a madvise call that gave back pages. Several sites may have mapped the pages.
static void give_back(uintptr_t first, size_t count) {
    uint64_t of[SITES] = { 0 };
    for (uintptr_t p = first; p < first + count; p++) of[pages[p].site] += PAGE;
    for (int i = 0; i < SITES; i++) {
        books[i].given_back_calls += of[i] > 0;
        books[i].given_back_bytes += of[i];
    }
}

static const int ANON = MAP_PRIVATE | MAP_ANONYMOUS;
NOINLINE void *site_mmap(size_t n) {
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, ANON, -1, 0);
    KEEP(p);
    return p;
}
NOINLINE void *site_mmap64(size_t n) {
    void *p = mmap64(NULL, n, PROT_NONE, ANON | MAP_NORESERVE, -1, 0);
    KEEP(p);
    return p;
}
NOINLINE void *site_fixed(void *at, size_t n) {
    void *p = mmap(at, n, PROT_READ, ANON | MAP_FIXED, -1, 0);
    KEEP(p);
    return p;
}
NOINLINE void *site_mremap(void *old, size_t n, size_t m, int flags, void *to) {
    void *p = mremap(old, n, m, flags, to);
    KEEP(p);
    return p;
}
NOINLINE void *site_shmat(int id) { void *p = shmat(id, NULL, 0); KEEP(p); return p; }

static int segment;
enum { SEGMENT_PAGES = 5 };

struct worker { uint64_t state; uint64_t operations; pthread_t thread; };
static uint64_t below(worker *w, uint64_t limit) {
    w->state = w->state * 6364136223846793005u + 1442695040888963407u;
    return (w->state >> 33) % limit;
}
static void need(bool holds, const char *what) { if (!holds) { perror(what); exit(99); } }

// Finds in the ledger, near a random address, up to `most` adjacent pages that one call mapped. If no page is
// found, `count` is set to 0.
static uintptr_t some_run(worker *w, size_t most, size_t *count) {
    *count = 0;
    if (pages.empty()) return 0;
    auto from = pages.begin();
    uintptr_t first = from->first, last = pages.rbegin()->first;
    auto at = pages.lower_bound(first + below(w, last - first + 1));
    if (at == pages.end()) at = from;
    uintptr_t start = at->first;
    while (at != pages.end() && at->first == start + *count && at->second.call == pages[start].call &&
           *count < most)
        ++at, ++*count;
    return start;
}

// Finds up to `most` adjacent pages in the ledger. Several calls may have mapped the pages.
static uintptr_t some_span(worker *w, size_t most, size_t *count) {
    uintptr_t start = some_run(w, 1, count);
    for (auto at = pages.find(start);
         *count && *count < most && ++at != pages.end() && at->first == start + *count;)
        ++*count;
    return start;
}

static void *work(void *argument) {
    worker *w = (worker *)argument;
    std::vector<void *> attached;
    for (uint64_t i = 0; i < w->operations; i++) {
        size_t count = 1 + below(w, 24);
        size_t length = count * PAGE - below(w, PAGE);     // the kernel rounds up
        switch (below(w, 10)) {
        case 0: case 1: {
            bool wide = below(w, 2);
            char *p = (char *)(wide ? site_mmap64(length) : site_mmap(length));
            need(p != MAP_FAILED, "mmap");
            std::lock_guard<std::mutex> guard(lock);
            remember(wide ? MMAP64 : MMAP, (uintptr_t)p / PAGE, count);
            break;
        }
        case 2: case 3: {                                  // munmap a part; a thread may map it again at once
            size_t n;
            uintptr_t run;
            { std::lock_guard<std::mutex> guard(lock); run = some_run(w, count, &n); if (n) forget(run, n); }
            if (n) need(munmap((void *)(run * PAGE), n * PAGE - below(w, PAGE)) == 0, "munmap");
            break;
        }
        case 4: {                                          // map over existing pages, under the lock
            std::lock_guard<std::mutex> guard(lock);
            size_t n;
            uintptr_t run = some_run(w, count, &n);
            if (!n) break;
            need(site_fixed((void *)(run * PAGE), n * PAGE) == (void *)(run * PAGE), "mmap fixed");
            remember(FIXED, run, n);
            break;
        }
        case 5: case 6: {                                  // grow, move or shrink a part
            std::lock_guard<std::mutex> guard(lock);
            size_t n;
            uintptr_t run = some_run(w, 8, &n);
            if (!n) break;
            char *p = (char *)site_mremap((void *)(run * PAGE), n * PAGE, length, MREMAP_MAYMOVE, NULL);
            if (p == MAP_FAILED) break;                    // a part of a shared segment may not grow
            forget(run, n);
            remember(MREMAP, (uintptr_t)p / PAGE, count);
            break;
        }
        case 7: {                                          // calls that fail and change nothing
            need(mmap(NULL, 0, PROT_READ, ANON, -1, 0) == MAP_FAILED, "mmap of nothing");
            need(munmap((void *)PAGE, 0) != 0, "munmap of nothing");
            need(munmap((void *)(PAGE + 1), PAGE) != 0, "munmap of no page");
            need(site_mremap((void *)PAGE, PAGE, 2 * PAGE, 0, NULL) == MAP_FAILED, "mremap of nothing");
            need(shmdt((void *)PAGE) != 0, "shmdt of nothing");
            need(madvise((void *)PAGE, PAGE, MADV_DONTNEED) != 0, "madvise of nothing");
            need(madvise(NULL, 0, MADV_DONTNEED) == 0, "madvise of no bytes");
            break;
        }
        case 8: {                                          // give pages back and keep them mapped
            static const int ADVICE[] = { MADV_DONTNEED, MADV_FREE, MADV_NORMAL, MADV_REMOVE };
            int advice = ADVICE[below(w, 4)];
            std::lock_guard<std::mutex> guard(lock);
            size_t n;
            uintptr_t span = some_span(w, count, &n);
            if (!n) break;
            bool done = madvise((void *)(span * PAGE), n * PAGE - below(w, PAGE), advice) == 0;
            need(done == (advice != MADV_REMOVE), "madvise");  // MADV_REMOVE fails for private memory
            if (done && advice != MADV_NORMAL) give_back(span, n);
            break;
        }
        default:
            if (attached.size() < 4) {
                char *p = (char *)site_shmat(segment);
                need(p != (char *)-1, "shmat");
                std::lock_guard<std::mutex> guard(lock);
                books[SHMAT].allocs++;
                books[SHMAT].allocated_bytes += SEGMENT_PAGES * PAGE;
                attached.push_back(p);
                need(madvise(p, SEGMENT_PAGES * PAGE, MADV_REMOVE) == 0, "madvise of a segment");
                books[SHMAT].given_back_calls++;
                books[SHMAT].given_back_bytes += SEGMENT_PAGES * PAGE;
            } else {
                need(shmdt(attached.back()) == 0, "shmdt");
                attached.pop_back();
                std::lock_guard<std::mutex> guard(lock);
                books[SHMAT].frees++;
                books[SHMAT].freed_bytes += SEGMENT_PAGES * PAGE;
            }
        }
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc < 3) return 99;
    int threads = atoi(argv[1]);
    uint64_t operations = strtoull(argv[2], NULL, 10), seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    segment = shmget(IPC_PRIVATE, SEGMENT_PAGES * PAGE, IPC_CREAT | 0600);
    need(segment >= 0, "shmget");
    enum { EARLIER = 64 };
    void *earlier[EARLIER], *attached = shmat(segment, NULL, 0);
    need(attached != (void *)-1, "shmat");
    for (int i = 0; i < EARLIER; i++)
        need((earlier[i] = mmap(NULL, 2 * PAGE, PROT_READ, ANON, -1, 0)) != MAP_FAILED, "mmap");
    wait_for_recording(argc, argv);
    for (int i = 0; i < EARLIER; i++) need(munmap(earlier[i], (1 + i % 2) * PAGE) == 0, "munmap");
    need(shmdt(attached) == 0, "shmdt");
    std::vector<worker> workers(threads);
    for (int i = 0; i < threads; i++) workers[i] = { seed * 1000 + i, operations / threads, 0 };
    if (threads == 1) work(&workers[0]);
    else {
        for (worker &w : workers) need(pthread_create(&w.thread, NULL, work, &w) == 0, "pthread_create");
        for (worker &w : workers) pthread_join(w.thread, NULL);
    }
    shmctl(segment, IPC_RMID, NULL);
    for (int i = 0; i < SITES; i++)
        printf("{\"function\":\"%s\",\"allocs\":%llu,\"allocated_bytes\":%llu,\"frees\":%llu,"
               "\"freed_bytes\":%llu,\"given_back_calls\":%llu,\"given_back_bytes\":%llu}\n",
               NAMES[i], (unsigned long long)books[i].allocs, (unsigned long long)books[i].allocated_bytes,
               (unsigned long long)books[i].frees, (unsigned long long)books[i].freed_bytes,
               (unsigned long long)books[i].given_back_calls, (unsigned long long)books[i].given_back_bytes);
    return 0;
}
