// A recorded program starts a child that edleak cannot record. The recording of the program must continue.
//#Trace: afterwards allocs=10 allocated_bytes=1000 frees=0
#include "check.h"
#include <limits.h>
#include <sys/wait.h>

NOINLINE void afterwards(void) { keep(malloc(100)); }

int main(void) {
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    CHECK(n > 0);
    path[n] = 0;
    strcpy(strrchr(path, '/') + 1, "helper_static");
    for (int i = 0; i < 10; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            execl(path, path, (char *)NULL);
            _exit(1);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 3);
        afterwards();
    }
    say("ok\n");
}
