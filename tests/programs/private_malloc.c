// Allocates with an allocator that is linked into the program and does not replace malloc, as a static
// mimalloc does.
//
// tests/tests/conditions/own_allocator.rs records this program.
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

// The compiler must not inline mi_malloc, because edleak cannot count an inlined call.
__attribute__((noinline, noclone)) void *mi_malloc(size_t size) {
    static char *at, *end;
    size = (size + 15) & ~(size_t)15;
    if (at == NULL || size > (size_t)(end - at)) {
        at = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        end = at + (1 << 20);
    }
    void *block = at;
    at += size;
    return block;
}

int main(int argc, char **argv) {
    for (int i = 0; i < 500; i++) {
        *(volatile char *)mi_malloc(20000) = 1;
        usleep(1000);
    }
    // The program uses write, because printf would allocate a buffer, and edleak would count the buffer.
    if (write(STDOUT_FILENO, "ok\n", 3) != 3) return 1;
    return argc > 1 ? atoi(argv[1]) : 0;
}
