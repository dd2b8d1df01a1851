// Makes four mappings and forks. The child unmaps one of the four and makes two more; the parent keeps four.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1 << 20)
__attribute__((noinline)) static void *in_parent(void) {
    void *m = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(m, 1, 4096);
    return m;
}
__attribute__((noinline)) static void *in_child(void) {
    void *m = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (m != MAP_FAILED) *(volatile char *)m = 1; // keeps the compiler from turning mmap into a jump
    return m;
}

int main(void) {
    char *mine[4];
    for (int i = 0; i < 4; i++) mine[i] = in_parent();
    usleep(200000);
    pid_t child = fork();
    if (child == 0) {
        free(malloc(10));
        usleep(300000);
        munmap(mine[1], MIB);
        if (in_child() == MAP_FAILED || in_child() == MAP_FAILED) _exit(1);
        usleep(200000);
        _exit(mine[2][0] == 1 ? 0 : 2);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return status != 0 || mine[3][0] != 1;
}
