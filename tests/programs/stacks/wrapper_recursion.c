/* A recursive wrapper. The site is the wrapper's caller; with too many levels, it is the wrapper itself.
 *
 * Small allocations take the fast path, large ones the slow path. The two paths must find the same site. */
#include <stdlib.h>

static void *volatile sink;

static __attribute__((noipa)) void *wrap_levels(int levels, size_t size) {
    void *made = levels > 1 ? wrap_levels(levels - 1, size) : malloc(size);
    sink = made; /* no tail call */
    return made;
}

/* One call with any number of levels. Calls with few levels must not change the site of deeper calls. */
static __attribute__((noipa)) void ask(int levels, size_t size) { free(wrap_levels(levels, size)); }

int main(void) {
    for (int i = 0; i < 1000; i++) {
        ask(63, 100);
        ask(63, 100000);
        ask(64, 100);
        ask(64, 100000);
    }
    return 0;
}
