// A program with jemalloc linked in forks a child. Parent and child allocate and free in the same way.
//
//   forked_jemalloc ROUNDS
//
//#Build: -fno-builtin -l:libjemalloc.a -ldl -lm -lstdc++
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))
#define KEEP(p) __asm__ volatile("" : "+r"(p) : : "memory")

NOINLINE void *site_parent(size_t n) { void *p = malloc(n); KEEP(p); return p; }
NOINLINE void *site_child(size_t n) { void *p = malloc(n); KEEP(p); return p; }

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 100;
    for (int i = 0; i < rounds; i++) free(site_parent(i));
    void *kept = site_parent(77);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < rounds; i++) free(site_child(i % 100));
        free(kept);
        usleep(200000);
        _exit(0);
    }
    int status = 1;
    waitpid(child, &status, 0);
    free(kept);
    return status;
}
