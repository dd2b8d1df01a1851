//#Expect: Leak in generated code
// A query engine that compiles every query to machine code, as SQL engines based on LLVM do. The generated
// code allocates a result buffer that is never freed. Each query has its own machine code in one mapping.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
static long leaked;
typedef char *(*query_fn)(void);
static query_fn compile(size_t slot) {
    static char *arena;
    if (!arena)
        arena = mmap(0, 1 << 22, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned char *p = (unsigned char *)arena + slot * 64, *q = p;
    void *f = (void *)malloc; unsigned n = 600;
    memcpy(q, "\x48\x83\xec\x08\xbf", 5); q += 5; memcpy(q, &n, 4); q += 4; // sub rsp,8; mov edi,600
    memcpy(q, "\x48\xb8", 2); q += 2; memcpy(q, &f, 8); q += 8;             // mov rax,malloc
    memcpy(q, "\xff\xd0\x48\x83\xc4\x08\xc3", 7);                           // call rax; add rsp,8; ret
    return (query_fn)p;
}
__attribute__((noinline)) void run_query(int i) {
    query_fn f = compile(i);
    for (int row = 0; row < 4; row++) { char *r = f(); memset(r, row, 600); leaked += 600; }
}
int main(int argc, char **argv) {
    int n = atoi(argv[1]);
    for (int i = 0; i < n; i++) { run_query(i); usleep(20000); }
    printf("ledger: %ld bytes\n", leaked);
}
