// Allocates in deep recursion on the stacks of two coroutines. While it runs, the program gets the stacks
// from malloc and from mmap. The first coroutine never frees its allocations.
#include "pace.h"
#include <sys/mman.h>
#include <ucontext.h>

enum { STACK_BYTES = 256 << 10, DEPTH = 40 };

static ucontext_t scheduler, contexts[2];
static int self;
static void *window[16];

NOINLINE void *bottom(void) { return keep(malloc(96)); }

NOINLINE void *dive(int depth) {
    volatile char room[1000]; // many pages deep
    room[depth] = 1;
    void *p = depth ? dive(depth - 1) : bottom();
    room[depth + 1] = room[depth];
    return keep(p);
}

NOINLINE void coroutine_keeps(void) {
    for (;;) {
        dive(DEPTH); // leaks
        swapcontext(&contexts[0], &scheduler);
    }
}

NOINLINE void coroutine_frees(void) {
    for (long i = 0;; i++) {
        free(window[i % 16]);
        window[i % 16] = dive(DEPTH); // kept for a while
        swapcontext(&contexts[1], &scheduler);
    }
}

static void start(ucontext_t *context, void *stack, void (*function)(void)) {
    getcontext(context);
    context->uc_stack.ss_sp = stack;
    context->uc_stack.ss_size = STACK_BYTES;
    makecontext(context, function, 0);
}

int main(int argc, char **argv) {
    struct pace pace = pace_start(argc, argv, 4, 200);
    start(&contexts[0], malloc(STACK_BYTES), coroutine_keeps);
    start(&contexts[1], mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
          coroutine_frees);
    while (pace_next(&pace))
        for (self = 0; self < 2; self++) swapcontext(&scheduler, &contexts[self]);
}
