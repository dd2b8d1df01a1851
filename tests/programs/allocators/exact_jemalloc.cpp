// tests/programs/exact.cpp with jemalloc linked into it.
//
//#Build: -fno-builtin -Wno-alloc-size-larger-than -Wno-unused-result -Wno-unused-variable
//#Build: -l:libjemalloc.a -ldl -lm
#define OWN_ALLOCATOR
#include "../exact.cpp"
