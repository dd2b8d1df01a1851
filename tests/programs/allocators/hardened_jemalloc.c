// A program with jemalloc linked in. The kernel forbids this process new executable memory (PR_SET_MDWE): the
// first run requests this rule and executes the program again.
//
//#Build: -fno-builtin -l:libjemalloc.a -ldl -lm -lstdc++
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif

int main(int argc, char **argv) {
    if (argc < 2) {
        if (prctl(PR_SET_MDWE, 1, 0, 0, 0) != 0) return puts("allowed"), 0;
        char *arguments[] = {argv[0], "again", NULL};
        execv("/proc/self/exe", arguments);
        return 1;
    }
    char *blocks[100];
    for (int i = 0; i < 100; i++) memset(blocks[i] = malloc(1000 + i), i, 1000);
    int sum = 0;
    for (int i = 0; i < 100; i++) sum += blocks[i][999], free(blocks[i]);
    printf("sum %d\n", sum);
}
