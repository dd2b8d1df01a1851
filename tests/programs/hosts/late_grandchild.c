// A child forks a grandchild and ends. The grandchild, which inherits the child's allocations, allocates only
// after 40 later children have ended. tests/tests/hosts.rs also compares the trace of the grandchild.
//#Record: --children
//#Trace: in_root allocs=7 frees=0
#include "check.h"
#include <sys/wait.h>
#include <unistd.h>

static void *inherited[30];
NOINLINE void in_child(int i) { inherited[i] = keep(malloc(100)); }
NOINLINE void in_root(void) { keep(malloc(10)); }
NOINLINE void in_short(void) { keep(malloc(64)); }
NOINLINE void in_grandchild(void) { keep(malloc(500)); }

static void grandchild(int go) {
    char byte;
    CHECK(read(go, &byte, 1) == 1);
    for (int i = 0; i < 30; i++) free(inherited[i]);
    for (int i = 0; i < 5; i++) in_grandchild();
    _exit(0);
}

int main(void) {
    int go[2], gone[2], status;
    CHECK(pipe(go) == 0 && pipe(gone) == 0);
    for (int i = 0; i < 7; i++) in_root();
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        for (int i = 0; i < 30; i++) in_child(i);
        if (fork() == 0) grandchild(go[0]);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    for (int i = 0; i < 40; i++) {
        pid_t one = fork();
        CHECK(one >= 0);
        if (one == 0) {
            for (int j = 0; j < 20; j++) in_short();
            _exit(0);
        }
        CHECK(waitpid(one, &status, 0) == one && status == 0);
    }
    close(gone[1]);
    CHECK(write(go[1], "x", 1) == 1);
    char byte;
    CHECK(read(gone[0], &byte, 1) == 0); // the end of the pipe shows that the grandchild has ended
    say("ok\n");
}
