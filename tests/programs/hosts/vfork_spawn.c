// Calls posix_spawn, system, popen, and vfork and exec (with an allocation between vfork and exec). The child
// of vfork shares the memory of its parent.
//#Trace: between_vfork_and_exec allocs=30 allocated_bytes=3000 frees=30
#include "check.h"
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;
static void *volatile made;
NOINLINE void between_vfork_and_exec(void) { made = keep(malloc(100)); }

int main(void) {
    int status;
    for (int i = 0; i < 30; i++) {
        pid_t child = vfork();
        CHECK(child >= 0);
        if (child == 0) {
            between_vfork_and_exec();
            execl("/bin/true", "true", (char *)NULL);
            _exit(1);
        }
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        free(made);
        exercise(50);
    }
    for (int i = 0; i < 10; i++) {
        char *arguments[] = {"sh", "-c", "exit 3", NULL};
        pid_t child;
        CHECK(posix_spawn(&child, "/bin/sh", NULL, NULL, arguments, environ) == 0);
        CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 3);
    }
    CHECK(WEXITSTATUS(system("exit 4")) == 4);
    FILE *pipe = popen("echo from the shell", "r");
    char line[64];
    CHECK(pipe && fgets(line, sizeof line, pipe));
    CHECK(pclose(pipe) == 0);
    say(line);
}
