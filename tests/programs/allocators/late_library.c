// After 300 ms, loads a library that has its own allocator, and allocates through this library.
//
//   late_library LIBRARY
//
//#Build: -ldl
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
    usleep(300000); // after this time edleak has reported which allocators it does not count
    void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
    void *(*allocate)(size_t) = library ? (void *(*)(size_t))dlsym(library, "je_malloc") : NULL;
    if (!allocate) return fprintf(stderr, "%s\n", dlerror()), 1;
    for (int i = 0; i < 100; i++) {
        *(volatile char *)allocate(1000) = 1;
        usleep(2000);
    }
    puts("done");
    return 0;
}
