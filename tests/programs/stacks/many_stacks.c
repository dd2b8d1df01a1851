// `many_stacks ROUNDS`: one site with 32,768 different stacks. A round frees and allocates once per stack.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define DEPTH 15
static void *kept[1 << DEPTH];
static volatile int after; // keeps every call from becoming a jump (a tail call)

__attribute__((noinline)) static void *leaf(size_t size) {
    void *allocation = malloc(size);
    after++;
    return allocation;
}

static void *descend(unsigned path, int depth, size_t size);

__attribute__((noinline)) static void *left(unsigned path, int depth, size_t size) {
    void *allocation = descend(path, depth, size);
    after++;
    return allocation;
}

__attribute__((noinline)) static void *right(unsigned path, int depth, size_t size) {
    void *allocation = descend(path, depth, size);
    after--;
    return allocation;
}

__attribute__((noinline)) static void *descend(unsigned path, int depth, size_t size) {
    if (depth == 0) return leaf(size);
    void *allocation = path & 1 ? left(path >> 1, depth - 1, size) : right(path >> 1, depth - 1, size);
    after++;
    return allocation;
}

int main(int argc, char **argv) {
    long rounds = argc > 1 ? atol(argv[1]) : 1;
    for (long round = 0; round < rounds; round++) {
        for (unsigned path = 0; path < 1u << DEPTH; path++) {
            free(kept[path]);
            kept[path] = descend(path, DEPTH, 16 + path % 64);
        }
        usleep(50000); // the time of one or two slices
    }
    puts("ok");
    return 0;
}
