// Uses glibc's malloc debugging while edleak records: its log of allocations, and the sizes of its blocks.
//
// tests/tests/conditions/malloc_debug.rs records this program with LD_PRELOAD=libc_malloc_debug.so.0.
#include <malloc.h>
#include <mcheck.h>
#include <stdio.h>
#include <stdlib.h>

// Keeps the compiler from turning a call of malloc into a jump, so that edleak sees the right caller.
static void *keep(void *p) {
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

__attribute__((noinline)) static void *site_a(size_t size) { return keep(malloc(size)); }

int main(void) {
    static void *kept[20];
    mtrace();
    for (int i = 0; i < 20; i++) kept[i] = site_a(11 * i);
    for (int i = 0; i < 20; i += 2) free(kept[i]);
    void *volatile moved = realloc(kept[1], 5000);
    muntrace();
    for (int i = 1; i < 20; i += 2) printf("%zu ", malloc_usable_size(i == 1 ? moved : kept[i]));
    printf("\n");
}
