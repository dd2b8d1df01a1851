// A program that traces its child, and a program that checks that no process traces it. edleak must trace
// neither of these programs.
#include "check.h"
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

int main(void) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
        raise(SIGSTOP);
        exercise(300);
        _exit(6);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFSTOPPED(status));
    for (long stops = 0;; stops++) {
        CHECK(ptrace(PTRACE_SYSCALL, child, NULL, NULL) == 0);
        CHECK(waitpid(child, &status, 0) == child);
        if (WIFEXITED(status)) break;
        CHECK(WIFSTOPPED(status));
    }
    CHECK(WEXITSTATUS(status) == 6);
    CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0); // succeeds only if the process has no tracer yet
    exercise(300);
    say("ok\n");
}
