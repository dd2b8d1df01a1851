// One allocation site that three paths reach through 24 recursive frames. Only the allocations of path_kept
// are never freed. One program for each compiler includes this file.
#include "pace.h"

enum { DEPTH = 24 };

struct node {
    struct node *next;
    long tick;
};

static inline __attribute__((always_inline)) struct node *new_node(long tick) {
    struct node *node = keep(malloc(sizeof *node + 48)); // the allocation
    node->tick = tick;
    return node;
}

NOINLINE struct node *make(long tick) { return keep(new_node(tick)); } // inlined here

NOINLINE struct node *descend(int depth, long tick) {
    if (depth == 0) return keep(make(tick)); // the bottom
    struct node *node = keep(descend(depth - 1, tick)); // the recursion
    node->tick += depth;
    return node;
}

NOINLINE struct node *path_freed(long tick) { return keep(descend(DEPTH, tick)); } // freed at once
NOINLINE struct node *path_window(long tick) { return keep(descend(DEPTH, tick)); } // kept for a while
NOINLINE struct node *path_kept(long tick) { return keep(descend(DEPTH, tick)); } // leaks

static struct node *window[32];

int main(int argc, char **argv) {
    struct pace pace = pace_start(argc, argv, 4, 200);
    while (pace_next(&pace)) {
        free(path_freed(pace.tick));
        free(window[pace.tick % 32]);
        window[pace.tick % 32] = path_window(pace.tick);
        path_kept(pace.tick)->next = NULL;
    }
}
