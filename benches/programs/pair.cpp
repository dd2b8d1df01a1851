// `pair malloc|calloc|realloc|new|array|wrapped COUNT`: COUNT pairs. The instructions of two runs with
// different counts differ only by the pairs.
#include <cstdlib>
#include <cstring>
#include <new>

static void *volatile kept; // keeps the compiler from removing the pair

// Known wrapper names, one for each kind of frame: fixed size only, rbp saved, with a frame pointer.
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
        for (long i = 0; i < count; i++) kept = std::realloc(kept, i & 1 ? 64 : 72); // in place: 72 bytes fit into the same block
        std::free(kept);
    } else if (!std::strcmp(argv[1], "new"))
        for (long i = 0; i < count; i++) { kept = ::operator new(64); ::operator delete(kept, std::size_t(64)); }
    else if (!std::strcmp(argv[1], "array"))
        for (long i = 0; i < count; i++) { kept = ::operator new[](64); ::operator delete[](kept); }
    else if (!std::strcmp(argv[1], "wrapped"))
        for (long i = 0; i < count; i++) { kept = xpalloc(64); std::free(kept); }
    else
        return 2;
    return 0;
}
