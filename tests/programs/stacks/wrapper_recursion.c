/* A wrapper that calls itself: with few levels its caller is the site, with more than edleak looks at it is its own.
 *
 * Small sizes go the fast way and large ones the slow way, and both must name the same site. */
#include <stdlib.h>

static void *volatile sink;

static __attribute__((noipa)) void *wrap_levels(int levels, size_t size) {
    void *made = levels > 1 ? wrap_levels(levels - 1, size) : malloc(size);
    sink = made; /* no tail call */
    return made;
}

static __attribute__((noipa)) void shallow(size_t size) { free(wrap_levels(63, size)); }

static __attribute__((noipa)) void deep(size_t size) { free(wrap_levels(64, size)); }

int main(void) {
    for (int i = 0; i < 1000; i++) {
        shallow(100);
        shallow(10000);
        deep(100);
        deep(10000);
    }
    return 0;
}
