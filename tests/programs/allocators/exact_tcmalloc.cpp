// tests/programs/exact.cpp with tcmalloc linked into it.
//
//#Build: -fno-builtin -Wno-alloc-size-larger-than -Wno-unused-result -Wno-unused-variable
//#Build: -l:libtcmalloc_minimal.a -ldl -lm
#define OWN_ALLOCATOR
#include "../exact.cpp"
