// A shared library that allocates for the program and calls functions of the program.
#include <stdlib.h>

void *volatile libmarked_last;

__attribute__((noinline)) void libmarked_allocate(size_t size) {
    libmarked_last = malloc(size); // allocated by the library
}

__attribute__((noinline)) void libmarked_call(void (*function)(size_t), size_t size) {
    function(size); // calls the program again
    libmarked_last = libmarked_last;
}
