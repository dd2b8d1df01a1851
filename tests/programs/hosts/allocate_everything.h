// Calls every allocation function that a program with its own malloc may take from a library.
#pragma once
#include "check.h"
#include <new>
#include <string>
#include <vector>

struct alignas(64) Aligned {
    char bytes[100];
};

static void allocate_everything() {
    for (int i = 1; i < 200; i++) {
        free(keep(malloc(i)));
        free(keep(realloc(keep(calloc(i, 3)), i * 5)));
        free(keep(reallocarray(keep(malloc(i)), i, 7)));
        free(keep(strdup("a string")));
        free(keep(new char[i])); // valid if operator new calls malloc, as the default one does
        operator delete(keep(malloc(i)));
        delete static_cast<Aligned *>(keep(new Aligned));
        delete[] static_cast<Aligned *>(keep(new Aligned[3]));
        delete static_cast<int *>(keep(new (std::nothrow) int));
        std::string text(i * 10, 'x');
        std::vector<std::string> texts(i, text);
        void *aligned;
        CHECK(!posix_memalign(&aligned, 64, i));
        free(keep(aligned));
        free(keep(aligned_alloc(64, 64 * i)));
    }
}
