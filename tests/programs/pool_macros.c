// A pool that uses only macros of valgrind, and an arena that uses only macros of AddressSanitizer.
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#include <edleak_asan.h>
#define EDLEAK_VALGRIND_BLOCKS
#include <edleak_valgrind.h>
#include <stdlib.h>

#define NOINLINE __attribute__((noinline, noclone))
// Keeps the compiler from turning the last call of a function into a jump.
#define KEEP() __asm__ volatile("" : : : "memory")

static char memory[1 << 16];
static char pool, moved;

NOINLINE static void *valgrind_alloc(char *object, size_t size) {
    VALGRIND_MEMPOOL_ALLOC(&pool, object, size);
    return object;
}
NOINLINE void in_pool(void) {
    for (int i = 0; i < 10; i++) {
        valgrind_alloc(memory + i * 100, 100);
        KEEP();
    }
}
NOINLINE static void *block_alloc(char *object, size_t size) {
    VALGRIND_MALLOCLIKE_BLOCK(object, size, 0, 0);
    return object;
}
NOINLINE void as_block(void) {
    for (int i = 0; i < 3; i++) {
        block_alloc(memory + 10000 + i * 100, 7);
        KEEP();
    }
}
NOINLINE static void *asan_alloc(char *object, size_t size) {
    ASAN_UNPOISON_MEMORY_REGION(object, size);
    return object;
}
NOINLINE void in_arena(char *chunk) {
    for (int i = 0; i < 8; i++) {
        asan_alloc(chunk + i * 64, 33);
        KEEP();
    }
}

int main(void) {
    VALGRIND_CREATE_MEMPOOL(&pool, 0, 0);
    in_pool();                                      // the pool has 10 objects of together 1000 bytes
    VALGRIND_MEMPOOL_FREE(&pool, memory);           // 9 objects are left
    VALGRIND_MOVE_MEMPOOL(&pool, &moved);
    VALGRIND_MEMPOOL_TRIM(&moved, memory + 300, 300); // 3 objects are left
    VALGRIND_CREATE_MEMPOOL(&pool, 0, 0);
    in_pool();
    VALGRIND_DESTROY_MEMPOOL(&pool);

    as_block();
    VALGRIND_FREELIKE_BLOCK(memory + 10000, 0);     // 2 blocks are left

    char *chunk = malloc(4096);
    ASAN_POISON_MEMORY_REGION(chunk, 4096);
    in_arena(chunk);                                // the arena has 8 objects
    ASAN_POISON_MEMORY_REGION(chunk, 64);           // 7 objects are left
    ASAN_UNPOISON_MEMORY_REGION(memory, 100);       // no object: the memory was never poisoned
    char *other = malloc(4096);
    ASAN_POISON_MEMORY_REGION(other, 4096);
    in_arena(other);
    ASAN_UNPOISON_MEMORY_REGION(other, 4096);       // the chunk goes back to malloc, and its objects with it
    free(other);
    return 0;
}
