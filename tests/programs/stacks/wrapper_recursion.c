/* A recursive wrapper: its caller is the site; beyond edleak's limit of levels the wrapper itself is the site.
 *
 * Small sizes take the fast path and large sizes the slow path; both must find the same site. */
#include <stdlib.h>

static void *volatile sink;

static __attribute__((noipa)) void *wrap_levels(int levels, size_t size) {
    void *made = levels > 1 ? wrap_levels(levels - 1, size) : malloc(size);
    sink = made; /* no tail call */
    return made;
}

/* One call with any number of levels. After calls with few levels, the site with many must still be right. */
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
