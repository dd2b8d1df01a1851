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

/* The same call with any number of levels: what is known of it from few must not be found through many. */
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
