// Coroutines on stacks from malloc and mmap allocate and switch. One coroutine is never finished.
//#Trace: in_coroutine allocs=3000 allocated_bytes=300000 frees=3000
#include "check.h"
#include <sys/mman.h>
#include <ucontext.h>

enum { COROUTINES = 3, STACK_BYTES = 65536 };
static ucontext_t scheduler, contexts[COROUTINES];
static int finished;
NOINLINE void *in_coroutine(void) { return keep(malloc(100)); }

static void body(int self) {
    for (int i = 0; i < 1000; i++) {
        void *p = in_coroutine();
        CHECK(p);
        memset(p, self, 100);
        swapcontext(&contexts[self], &scheduler);
        CHECK(((char *)p)[99] == self);
        free(p);
    }
    finished++;
}
static void never_ends(void) {
    keep(malloc(1));
    swapcontext(&contexts[0], &scheduler);
    CHECK(!"reached");
}

static void start(ucontext_t *context, void *stack, void (*function)(void), int argument) {
    CHECK(getcontext(context) == 0);
    context->uc_stack.ss_sp = stack;
    context->uc_stack.ss_size = STACK_BYTES;
    context->uc_link = &scheduler;
    makecontext(context, function, 1, argument);
}

int main(void) {
    for (int i = 0; i < COROUTINES; i++) {
        void *stack =
            i % 2 ? malloc(STACK_BYTES)
                  : mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        start(&contexts[i], stack, (void (*)(void))body, i);
    }
    while (finished < COROUTINES)
        for (int i = 0; i < COROUTINES; i++)
            if (finished == 0 || finished <= i) swapcontext(&scheduler, &contexts[i]);
    start(&contexts[0], malloc(STACK_BYTES), never_ends, 0);
    swapcontext(&scheduler, &contexts[0]);
    exercise(1000);
    say("ok\n");
}
