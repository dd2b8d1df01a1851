/* Each iteration keeps one pool object and three mapped pages, and gives all its other memory back. Prints
   the bytes and the number of objects and of mappings at each mark as JSON. Arguments:
   ITERATIONS [wait]. */
#include "attach_wait.h"
#include "edleak.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, OBJECT = 48, CHUNK = 1 << 20 };

static char *chunk;
static size_t used;

__attribute__((noinline)) static void *pool_get(size_t size) {
    void *object = chunk + used;
    used += size;
    edleak_pool_alloc(&used, object, size);
    return object;
}

__attribute__((noinline)) static void *keep_object(void) {
    void *object = pool_get(OBJECT);
    __asm__ volatile("" : "+r"(object));
    return object;
}

__attribute__((noinline)) static void *borrow_object(void) {
    void *object = pool_get(2 * OBJECT);
    __asm__ volatile("" : "+r"(object));
    return object;
}

#define MAP_PAGES(pages) \
    mmap(NULL, (pages) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)

__attribute__((noinline)) static void keep_pages(void) {
    char *pages = MAP_PAGES(3);
    if (pages == MAP_FAILED) abort();
    memset(pages, 1, 3 * PAGE);
}

__attribute__((noinline)) static char *borrow_pages(void) {
    char *pages = MAP_PAGES(5);
    if (pages == MAP_FAILED) abort();
    memset(pages, 1, 5 * PAGE);
    return pages;
}

int main(int argc, char **argv) {
    int iterations = argc > 1 ? atoi(argv[1]) : 60;
    wait_for_recording(argc, argv);
    chunk = malloc(CHUNK);
    edleak_pool_name(&used, "objects");
    printf("[");
    for (int i = 0; i <= iterations; i++) {
        edleak_mark("iteration");
        printf("%s[%d,%d,%d,%d]", i ? "," : "", i * OBJECT, i, i * 3 * PAGE, i);
        if (i == iterations) break;
        void *borrowed = borrow_object();
        char *pages = borrow_pages();
        keep_object();
        keep_pages();
        edleak_pool_free(&used, borrowed);
        munmap(pages, 5 * PAGE);
    }
    printf("]\n");
    return 0;
}
