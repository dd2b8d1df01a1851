// `pair malloc|calloc|realloc|new|array|wrapped COUNT` makes COUNT pairs of this kind. Two runs with
// different COUNT differ only in the instructions of the additional pairs.
//
// `pair steps COUNT` waits for the end of its input, and then makes COUNT pairs of malloc and free between
// two breakpoints. A tracer counts the instructions between the two breakpoints.
#include <cstdlib>
#include <cstring>
#include <new>
#include <unistd.h>

static void *volatile kept; // keeps the compiler from removing the pair

// Three functions whose names edleak knows as wrappers. Their frames differ: fixed size, rbp saved, frame
// pointer.
extern "C" __attribute__((noipa)) void *xmalloc(std::size_t size) {
    void *made = std::malloc(size);
    kept = made; // no tail call
    return made;
}
extern "C" __attribute__((noipa)) void *xzalloc(std::size_t size) {
    asm volatile("" ::: "rbp");
    void *made = xmalloc(size);
    kept = made;
    return made;
}
extern "C" __attribute__((noipa, optimize("no-omit-frame-pointer"))) void *xpalloc(std::size_t size) {
    void *made = xzalloc(size);
    kept = made;
    return made;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    long count = std::atol(argv[2]);
    if (!std::strcmp(argv[1], "malloc"))
        for (long i = 0; i < count; i++) { kept = std::malloc(64); std::free(kept); }
    else if (!std::strcmp(argv[1], "calloc"))
        for (long i = 0; i < count; i++) { kept = std::calloc(1, 64); std::free(kept); }
    else if (!std::strcmp(argv[1], "realloc")) {
        kept = std::malloc(64);
        for (long i = 0; i < count; i++)
            kept = std::realloc(kept, i & 1 ? 64 : 72); // in place: the block has room for 72 bytes
        std::free(kept);
    } else if (!std::strcmp(argv[1], "new"))
        for (long i = 0; i < count; i++) {
            kept = ::operator new(64);
            ::operator delete(kept, std::size_t(64));
        }
    else if (!std::strcmp(argv[1], "array"))
        for (long i = 0; i < count; i++) { kept = ::operator new[](64); ::operator delete[](kept); }
    else if (!std::strcmp(argv[1], "wrapped"))
        for (long i = 0; i < count; i++) { kept = xpalloc(64); std::free(kept); }
    else if (!std::strcmp(argv[1], "steps")) {
        char byte;
        while (read(0, &byte, 1) > 0) {
        }
        for (long round = 0; round < 2; round++) {
            // The first round runs without breakpoints, so that it makes all first calls.
            long pairs = round ? count : 2000;
            if (round) asm volatile("int3");
            for (long i = 0; i < pairs; i++) { kept = std::malloc(64); std::free(kept); }
        }
        asm volatile("int3");
    } else
        return 2;
    return 0;
}
