// Makes a child with the system call clone, without CLONE_VM: libc's fork and atfork handlers do not run.
//#Trace: in_both allocs=10 allocated_bytes=1000 frees=10
#include "check.h"
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

NOINLINE void *in_both(void) { return keep(malloc(100)); }

int main(void) {
    for (int i = 0; i < 10; i++) {
        long child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
        CHECK(child >= 0);
        if (child == 0) {
            for (int n = 0; n < 100; n++) CHECK(in_both());
            exercise(300);
            _exit(i + 1);
        }
        free(in_both());
        int status;
        CHECK(waitpid((pid_t)child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == i + 1);
    }
    exercise(300);
    say("ok\n");
}
