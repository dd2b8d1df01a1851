// tests/programs/idle_ledger.cpp with jemalloc linked into it.
//
//#Build: -fno-builtin -Wno-unused-result -l:libjemalloc.a -ldl -lm
#include "../idle_ledger.cpp"
