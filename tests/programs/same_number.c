// Two processes have the same PID: the recorded process here, and another process in its own PID namespace.
//
// Exits with 77 if it may not create namespaces. Recorded by tests/tests/conditions/namespaces.rs.
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

// Keeps the compiler from turning a call of malloc into a jump, so that edleak sees the right caller.
static void *keep(void *p) {
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

__attribute__((noinline)) static void *root_work(void) { return keep(malloc(100)); }
__attribute__((noinline)) static void *impostor_work(void) { return keep(malloc(200)); }

static void allocate(void *(*work)(void), int count) {
    for (int i = 0; i < count; i++) {
        void *volatile kept = work();
        (void)kept;
    }
}

int main(int argc, char **argv) {
    int wanted = getpid();
    if (argc > 1) {
        // The other process executes this program, so that it claims a session of its own.
        allocate(impostor_work, 300);
        usleep(300000);
        return argv[1][0] == 'x' ? 0 : 1;
    }
    allocate(root_work, 500);
    if (unshare(CLONE_NEWPID)) return 77;
    pid_t first = fork();
    if (first == 0) {
        for (;;) {
            pid_t next = fork();
            if (next == 0 && getpid() == wanted) {
                execl("/proc/self/exe", "same_number", "x", NULL);
                _exit(3);
            }
            if (next == 0) _exit(0);
            int status;
            waitpid(next, &status, 0);
            if (next == wanted) _exit(status != 0);
            if (next > wanted) _exit(4);
        }
    }
    int status = 1;
    waitpid(first, &status, 0);
    allocate(root_work, 500);
    printf("%d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 99);
}
