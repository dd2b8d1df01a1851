// Allocates in .preinit_array and in a static constructor of the highest priority, before other constructors.
//#Trace: in_preinit allocs=1 allocated_bytes=111 frees=1
//#Trace: in_constructor allocs=1 allocated_bytes=222 frees=1
#include "check.h"

static void *first, *second;

extern "C" {
NOINLINE void in_preinit(int, char **, char **) {
    first = keep(malloc(111));
    __asm__ volatile("" ::: "memory");
}
NOINLINE void in_constructor() {
    second = keep(new char[222]);
    __asm__ volatile("" ::: "memory");
}
}
__attribute__((section(".preinit_array"), used))
static void (*const preinit)(int, char **, char **) = in_preinit;

struct early { early() { in_constructor(); } };
__attribute__((init_priority(101))) static early instance;

int main() {
    CHECK(first && second);
    free(first);
    delete[] static_cast<char *>(second);
    exercise(1000);
    say("ok\n");
}
