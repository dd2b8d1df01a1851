// A reference for edleak's counts: random calls of every allocation function. Prints its own counts as JSON.
//
//   exact THREADS OPERATIONS [SEED [FILE]]
//
// With FILE, the program repeats the operations until FILE exists.
//
// Exactly one function calls each entry point, so a site of the trace equals one line of the printed ledger.
// All threads share the slots for allocations: another thread frees most allocations, often after the
// allocating thread has ended. The table, the ledger and the random numbers never use the heap.
//
//#Build: -fno-builtin -Wno-alloc-size-larger-than -Wno-unused-result
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <malloc.h>
#include <new>
#include <pthread.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))
// Uses the result of the call before KEEP, so that the compiler does not turn this call into a jump.
#define KEEP(p) __asm__ volatile("" : "+r"(p) : : "memory")

// Functions of C23, in glibc since 2.43. The program calls these functions if a library provides them.
extern "C" void free_sized(void *, size_t) __attribute__((weak));
extern "C" void free_aligned_sized(void *, size_t, size_t) __attribute__((weak));
#if defined(__GLIBC__) && !defined(OWN_ALLOCATOR)
// glibc 2.26 removed cfree for new programs, but old programs can still use it.
extern "C" void cfree(void *);
__asm__(".symver cfree,cfree@GLIBC_2.2.5");
#else
static void cfree(void *p) { free(p); }
#endif

// ---------------------------------------------------------------- the ledger

enum site {
    MALLOC, CALLOC, REALLOC, REALLOC_NULL, REALLOCARRAY, POSIX_MEMALIGN, ALIGNED_ALLOC, MEMALIGN, VALLOC,
    PVALLOC, NEW, NEW_ARRAY, NEW_NOTHROW, NEW_ARRAY_NOTHROW, NEW_ALIGNED, NEW_ARRAY_ALIGNED,
    NEW_ALIGNED_NOTHROW, NEW_ARRAY_ALIGNED_NOTHROW, STRDUP, STRNDUP,
    FAIL, SITES
};
static const char *const NAMES[SITES] = {
    "site_malloc", "site_calloc", "site_realloc", "site_realloc_null", "site_reallocarray",
    "site_posix_memalign", "site_aligned_alloc", "site_memalign", "site_valloc", "site_pvalloc", "site_new",
    "site_new_array", "site_new_nothrow", "site_new_array_nothrow", "site_new_aligned",
    "site_new_array_aligned", "site_new_aligned_nothrow", "site_new_array_aligned_nothrow", "site_strdup",
    "site_strndup", "site_fail",
};

struct counts { uint64_t allocs, allocated_bytes, frees, freed_bytes; };

enum { MAX_THREADS = 64, SLOTS = 4096, ALIGNMENT = 64 };

struct worker {
    counts books[SITES];
    uint64_t random_state;
    uint64_t operations;
    pthread_t thread;

    uint32_t random() {
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        return (uint32_t)(random_state >> 32);
    }
    void add(site s, size_t size) { books[s].allocs++, books[s].allocated_bytes += size; }
    void sub(site s, size_t size) { books[s].frees++, books[s].freed_bytes += size; }
};
static worker workers[MAX_THREADS];

struct slot {
    std::atomic_flag lock;
    unsigned char *p;
    size_t size;
    site made_by;
    unsigned char fill;
};
static slot slots[SLOTS];

[[noreturn]] static void fail(const char *what) {
    fprintf(stderr, "exact: %s\n", what);
    _exit(9);
}

// ---------------------------------------------------------------- one function per entry point

extern "C" {
NOINLINE void *site_malloc(size_t n) { void *p = malloc(n); KEEP(p); return p; }
NOINLINE void *site_calloc(size_t n) { void *p = calloc(n, 3); KEEP(p); return p; }
NOINLINE void *site_realloc(void *old, size_t n) { void *p = realloc(old, n); KEEP(p); return p; }
NOINLINE void *site_realloc_null(size_t n) { void *p = realloc(nullptr, n); KEEP(p); return p; }
NOINLINE void *site_reallocarray(void *old, size_t n) {
    void *p = reallocarray(old, n, 5);
    KEEP(p);
    return p;
}
NOINLINE void *site_posix_memalign(size_t n) {
    void *p = nullptr;
    int result = posix_memalign(&p, ALIGNMENT, n);
    KEEP(p);
    return result ? nullptr : p;
}
NOINLINE void *site_aligned_alloc(size_t n) { void *p = aligned_alloc(ALIGNMENT, n); KEEP(p); return p; }
NOINLINE void *site_memalign(size_t n) { void *p = memalign(ALIGNMENT, n); KEEP(p); return p; }
NOINLINE void *site_valloc(size_t n) { void *p = valloc(n); KEEP(p); return p; }
#ifdef OWN_ALLOCATOR
// Calls valloc and not pvalloc: if the allocator does not define pvalloc, libc's pvalloc returns memory that
// the allocator cannot free.
NOINLINE void *site_pvalloc(size_t n) { void *p = valloc(n); KEEP(p); return p; }
#else
NOINLINE void *site_pvalloc(size_t n) { void *p = pvalloc(n); KEEP(p); return p; }
#endif
NOINLINE void *site_new(size_t n) { void *p = ::operator new(n); KEEP(p); return p; }
NOINLINE void *site_new_array(size_t n) { void *p = ::operator new[](n); KEEP(p); return p; }
NOINLINE void *site_new_nothrow(size_t n) { void *p = ::operator new(n, std::nothrow); KEEP(p); return p; }
NOINLINE void *site_new_array_nothrow(size_t n) {
    void *p = ::operator new[](n, std::nothrow);
    KEEP(p);
    return p;
}
static const std::align_val_t ALIGN{ALIGNMENT};
NOINLINE void *site_new_aligned(size_t n) { void *p = ::operator new(n, ALIGN); KEEP(p); return p; }
NOINLINE void *site_new_array_aligned(size_t n) { void *p = ::operator new[](n, ALIGN); KEEP(p); return p; }
NOINLINE void *site_new_aligned_nothrow(size_t n) {
    void *p = ::operator new(n, ALIGN, std::nothrow);
    KEEP(p);
    return p;
}
NOINLINE void *site_new_array_aligned_nothrow(size_t n) {
    void *p = ::operator new[](n, ALIGN, std::nothrow);
    KEEP(p);
    return p;
}
NOINLINE void *site_strdup(const char *s) { void *p = strdup(s); KEEP(p); return p; }
NOINLINE void *site_strndup(const char *s, size_t n) { void *p = strndup(s, n); KEEP(p); return p; }

// The ledger omits the allocations of asprintf and getline: libc makes them, and the program frees them all.
NOINLINE void balanced_asprintf(int n) {
    char *text = nullptr;
    if (asprintf(&text, "%0*d", n, 7) != n) fail("asprintf returned a wrong length");
    free(text);
    KEEP(text);
}
NOINLINE void balanced_getline(FILE *file) {
    char *line = nullptr;
    size_t capacity = 0;
    rewind(file);
    if (getline(&line, &capacity, file) <= 0) fail("getline read nothing");
    free(line);
    KEEP(line);
}

// Every call in site_fail must fail, must change nothing, and must set errno as its specification says.
NOINLINE void site_fail(unsigned kind) {
    static volatile size_t huge = SIZE_MAX / 2 + 4096, half = SIZE_MAX / 2 + 2;
    void *p = nullptr, *untouched = (void *)0x1234;
    int want = ENOMEM;
    errno = 77;
    switch (kind % 12) {
    case 0: p = malloc(huge); break;
    case 1: p = calloc(half, 2); break;
    case 2: p = realloc(nullptr, huge); break;
    case 3: p = reallocarray(nullptr, half, 2); break;
    case 4:
        // posix_memalign returns its error, and leaves errno and the result unchanged.
        if (posix_memalign(&untouched, 24, 100) != EINVAL || untouched != (void *)0x1234)
            fail("posix_memalign(24)");
        want = 77;
        break;
    case 5:
        if (posix_memalign(&untouched, 64, huge) != ENOMEM || untouched != (void *)0x1234)
            fail("posix_memalign(huge)");
        want = errno; // glibc sets errno, although no standard requires it
        break;
    case 6: p = aligned_alloc(64, huge); break;
    case 7: p = memalign(64, huge); break;
    case 8: p = valloc(huge); break;
    case 9: p = pvalloc(huge); break;
    case 10: p = ::operator new(huge, std::nothrow); break;
    case 11: p = ::operator new[](huge, ALIGN, std::nothrow); break;
    }
    int got = errno;
    KEEP(p);
    if (p) fail("an impossible allocation succeeded");
#ifdef OWN_ALLOCATOR
    want = got; // some allocators do not set errno
#endif
    if (got != want) fail("errno of a failed call is wrong");
}

NOINLINE void site_throw() {
    static volatile size_t huge = SIZE_MAX / 2 + 4096;
    try {
        void *p = ::operator new(huge);
        KEEP(p);
    } catch (const std::bad_alloc &) {
        return;
    }
    fail("operator new returned from an impossible request");
}
}

// ---------------------------------------------------------------- operations

static bool is_new(site s) { return s >= NEW && s <= NEW_ARRAY_ALIGNED_NOTHROW; }
static bool is_aligned(site s) {
    return (s >= POSIX_MEMALIGN && s <= MEMALIGN) || (s >= NEW_ALIGNED && s <= NEW_ARRAY_ALIGNED_NOTHROW);
}

static size_t random_size(worker &w) {
    uint32_t r = w.random();
    switch (r % 64) {
    case 0: return 0;
    case 1: return 4080 + (r >> 8) % 40;        // sizes around 4095, the largest size that 12 bits can hold
    case 2: return 60000 + (r >> 8) % 200000;   // around the mmap threshold
    case 3: case 4: case 5: return (r >> 8) % 20000;
    default: return (r >> 8) % 300;
    }
}

static void allocate(worker &w, slot &s) {
    static const char TEXT[] = "a string of fifty-nine bytes or so, to be duplicated again and again";
    size_t n = random_size(w);
    site made_by = (site)(w.random() % FAIL);
    void *p = nullptr;
#ifdef OWN_ALLOCATOR
    if (is_aligned(made_by) && n == 0) n = 1; // for 0 bytes jemalloc ignores the alignment
#endif
    switch (made_by) {
    case MALLOC: p = site_malloc(n); break;
    case CALLOC:
        n -= n % 3;
        p = site_calloc(n / 3);
        for (size_t i = 0; i < n; i++)
            if (((unsigned char *)p)[i]) fail("calloc's memory is not zero");
        break;
    case REALLOC: p = site_realloc(nullptr, n); break;
    case REALLOC_NULL: p = site_realloc_null(n); break;
    case REALLOCARRAY:
        n -= n % 5;
        p = site_reallocarray(nullptr, n / 5);
        break;
    case POSIX_MEMALIGN: p = site_posix_memalign(n); break;
    case ALIGNED_ALLOC: p = site_aligned_alloc(n); break;
    case MEMALIGN: p = site_memalign(n); break;
    case VALLOC: p = site_valloc(n %= 5000); break;
    case PVALLOC: p = site_pvalloc(n %= 5000); break;
    case NEW: p = site_new(n); break;
    case NEW_ARRAY: p = site_new_array(n); break;
    case NEW_NOTHROW: p = site_new_nothrow(n); break;
    case NEW_ARRAY_NOTHROW: p = site_new_array_nothrow(n); break;
    case NEW_ALIGNED: p = site_new_aligned(n); break;
    case NEW_ARRAY_ALIGNED: p = site_new_array_aligned(n); break;
    case NEW_ALIGNED_NOTHROW: p = site_new_aligned_nothrow(n); break;
    case NEW_ARRAY_ALIGNED_NOTHROW: p = site_new_array_aligned_nothrow(n); break;
    case STRDUP:
        n = sizeof TEXT - n % sizeof TEXT;
        p = site_strdup(TEXT + sizeof TEXT - n);
        break;
    case STRNDUP:
        n = n % 50 + 1;
        p = site_strndup(TEXT, n - 1);
        break;
    default: fail("unreachable");
    }
    if (!p) fail("an allocation failed");
    if (is_aligned(made_by) && (uintptr_t)p % ALIGNMENT) fail(NAMES[made_by]);
    w.add(made_by, n);
    s.p = (unsigned char *)p;
    s.size = n;
    s.made_by = made_by;
    s.fill = (unsigned char)w.random();
    memset(p, s.fill, n);
}

static void check_content(const slot &s, size_t n) {
    if (n && (s.p[0] != s.fill || s.p[n / 2] != s.fill || s.p[n - 1] != s.fill))
        fail("somebody wrote into an allocation");
}

static void release(worker &w, slot &s) {
    uint32_t how = w.random();
    check_content(s, s.size);
    w.sub(s.made_by, s.size); // must come before the free: afterwards another thread may get the address
    int saved = errno = (int)(how % 100 + 1);
    switch (s.made_by) {
    case NEW: how & 1 ? ::operator delete(s.p) : ::operator delete(s.p, s.size); break;
    case NEW_NOTHROW: how & 1 ? ::operator delete(s.p) : ::operator delete(s.p, std::nothrow); break;
    case NEW_ARRAY: how & 1 ? ::operator delete[](s.p) : ::operator delete[](s.p, s.size); break;
    case NEW_ARRAY_NOTHROW:
        how & 1 ? ::operator delete[](s.p) : ::operator delete[](s.p, std::nothrow);
        break;
    case NEW_ALIGNED: how & 1 ? ::operator delete(s.p, ALIGN) : ::operator delete(s.p, s.size, ALIGN); break;
    case NEW_ALIGNED_NOTHROW:
        how & 1 ? ::operator delete(s.p, ALIGN) : ::operator delete(s.p, ALIGN, std::nothrow);
        break;
    case NEW_ARRAY_ALIGNED:
        how & 1 ? ::operator delete[](s.p, ALIGN) : ::operator delete[](s.p, s.size, ALIGN);
        break;
    case NEW_ARRAY_ALIGNED_NOTHROW:
        how & 1 ? ::operator delete[](s.p, ALIGN) : ::operator delete[](s.p, ALIGN, std::nothrow);
        break;
    case ALIGNED_ALLOC:
        if (free_aligned_sized && how & 1) free_aligned_sized(s.p, ALIGNMENT, s.size);
        else free(s.p);
        break;
    case MALLOC: case CALLOC:
        if (free_sized && how & 1) free_sized(s.p, s.size);
        else if (how & 2) cfree(s.p);
        else free(s.p);
        break;
    default: free(s.p);
    }
#ifndef OWN_ALLOCATOR
    if (errno != saved) fail("a free changed errno");
#endif
    (void)saved;
    s.p = nullptr;
}

// Calls realloc or reallocarray: makes a block larger or smaller, frees it (size 0), or makes the call fail.
static void resize(worker &w, slot &s) {
    static volatile size_t huge = SIZE_MAX / 2 + 4096;
    uint32_t how = w.random() % 16;
    check_content(s, s.size);
    if (how == 0) {
        errno = 77;
        if (site_realloc(s.p, huge)) fail("realloc of an impossible size");
#ifndef OWN_ALLOCATOR
        if (errno != ENOMEM) fail("errno of a failed realloc is wrong");
#endif
        check_content(s, s.size); // unchanged
        return;
    }
    if (how == 1) {
        // For size 0, glibc frees the block and returns NULL, but musl returns a new allocation of size 0.
        w.sub(s.made_by, s.size);
        s.p = (unsigned char *)site_realloc(s.p, 0);
        if (s.p) w.add(REALLOC, 0), s.size = 0, s.made_by = REALLOC;
        return;
    }
    size_t n = how < 6 ? s.size + how : random_size(w) + 5; // slightly larger, or any size
    w.sub(s.made_by, s.size);
    size_t kept = s.size;
    if (how & 1) {
        s.p = (unsigned char *)site_realloc(s.p, n);
        s.made_by = REALLOC;
    } else {
        n = n / 5 * 5 + 5;
        s.p = (unsigned char *)site_reallocarray(s.p, n / 5);
        s.made_by = REALLOCARRAY;
    }
    if (!s.p) fail("realloc failed");
    w.add(s.made_by, n);
    check_content(s, kept < n ? kept : n);
    s.size = n;
    memset(s.p, s.fill, n);
}

static void *run(void *argument) {
    worker &w = *static_cast<worker *>(argument);
    for (uint64_t i = 0; i < w.operations; i++) {
        slot &s = slots[w.random() % SLOTS];
        if (s.lock.test_and_set(std::memory_order_acquire)) continue;
        uint32_t what = w.random() % 64;
        if (!s.p) allocate(w, s);
        else if (what < 16 && !is_new(s.made_by)) resize(w, s);
        else if (what < 20) {
            // A program may write all bytes of the usable size, even those after the requested size.
            size_t usable = malloc_usable_size(s.p);
            if (usable < s.size) fail("malloc_usable_size is less than was asked for");
            memset(s.p, s.fill, usable);
        } else release(w, s);
        s.lock.clear(std::memory_order_release);
        if (what == 63) site_fail(w.random());
        if (what == 62 && i % 16 == 0) site_throw();
        if (what == 61) balanced_asprintf(1 + (int)(w.random() % 500));
    }
    return nullptr;
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    uint64_t operations = argc > 2 ? strtoull(argv[2], nullptr, 10) : 1000000;
    uint64_t seed = argc > 3 ? strtoull(argv[3], nullptr, 10) : 1;
    const char *file = argc > 4 ? argv[4] : nullptr;
    if (threads < 1 || threads > MAX_THREADS) return 2;

    FILE *lines = tmpfile();
    if (!lines) fail("tmpfile");
    fprintf(lines, "%0300d\n", 1);

    // The program starts four generations of threads, one after another. The threads of one generation also
    // free the allocations that the threads of the previous generation left behind.
    enum { GENERATIONS = 4 };
    for (int i = 0; i < threads; i++)
        workers[i].random_state = seed * 0x9e3779b97f4a7c15u + (uint64_t)i * 0xbf58476d1ce4e5b9u + 1;
    do {
        for (int generation = 0; generation < GENERATIONS; generation++) {
            for (int i = 0; i < threads; i++) {
                workers[i].operations = operations / GENERATIONS / (uint64_t)threads;
                if (threads == 1) run(&workers[i]);
                else if (pthread_create(&workers[i].thread, nullptr, run, &workers[i]))
                    fail("pthread_create");
            }
            if (threads > 1)
                for (int i = 0; i < threads; i++) pthread_join(workers[i].thread, nullptr);
            for (int i = 0; i < 100; i++) balanced_getline(lines);
        }
    } while (file && access(file, F_OK) != 0);
    fclose(lines);
    for (int i = 0; i < SLOTS; i += 2)
        if (slots[i].p) release(workers[0], slots[i]);

    for (int i = 0; i < SITES; i++) {
        counts sum = {};
        for (const worker &w : workers) {
            sum.allocs += w.books[i].allocs;
            sum.allocated_bytes += w.books[i].allocated_bytes;
            sum.frees += w.books[i].frees;
            sum.freed_bytes += w.books[i].freed_bytes;
        }
        printf("{\"function\":\"%s\",\"allocs\":%lu,\"allocated_bytes\":%lu,\"frees\":%lu,"
               "\"freed_bytes\":%lu}\n",
               NAMES[i], sum.allocs, sum.allocated_bytes, sum.frees, sum.freed_bytes);
    }
}
