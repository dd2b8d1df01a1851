// Makes two allocations of special sizes: in a comparison function of qsort, and in a shared library.
//
//#Build: $OUT/libmarked.so -fomit-frame-pointer -fno-optimize-sibling-calls
#include <stdlib.h>
#include <unistd.h>

void libmarked_allocate(size_t size);
void libmarked_call(void (*function)(size_t), size_t size);
static int compared;
void *volatile kept;

static int compare(const void *left, const void *right) {
    if (!compared++) kept = malloc(54321); // called by qsort
    return *(const int *)left - *(const int *)right;
}

static __attribute__((noinline)) void back(size_t size) {
    volatile char room[5000];
    room[size % 5000] = 1;
    libmarked_allocate(size + room[size % 5000]); // into the library again
}

static inline __attribute__((always_inline)) void inlined(void) {
    libmarked_call(back, 65432); // into the library
}

static __attribute__((noinline)) int sort(int *items, size_t count) {
    qsort(items, count, sizeof *items, compare); // through libc
    inlined(); // through an inlined function
    return items[0];
}

int main(void) {
    int items[] = {3, 1, 2};
    return sort(items, 3) != 1;
}
