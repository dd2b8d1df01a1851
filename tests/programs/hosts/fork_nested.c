// Forks three levels of children, and every process allocates. A daemon lives longer than its parents.
#include "check.h"
#include <sys/wait.h>

static int descend(int levels) {
    exercise(200);
    if (levels == 0) return 1;
    int sum = 1;
    for (int i = 0; i < 2; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) _exit(descend(levels - 1));
        exercise(200);
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
        sum += WEXITSTATUS(status);
    }
    return sum;
}

int main(void) {
    CHECK(descend(3) == 15);
    int ready[2];
    CHECK(pipe(ready) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        if (fork()) _exit(0);
        setsid();
        close(0), close(1), close(2), close(ready[0]);
        for (int i = 0; i < 10; i++) exercise(1000);
        CHECK(write(ready[1], "d", 1) == 1);
        _exit(0);
    }
    int status;
    char byte;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    close(ready[1]);
    CHECK(read(ready[0], &byte, 1) == 1 && byte == 'd');
    say("ok\n");
}
