// A child that cannot open any file before its first allocation, for example after chroot.
//#Record: --children
//#Trace: in_parent allocs=50 allocated_bytes=5000 frees=0
#include "check.h"
#include <sys/resource.h>
#include <sys/wait.h>

NOINLINE void in_parent(void) { keep(malloc(100)); }

int main(void) {
    for (int i = 0; i < 50; i++) in_parent();
    for (int i = 0; i < 2; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            struct rlimit none = {0, 0};
            if (setrlimit(RLIMIT_NOFILE, &none)) _exit(1);
            for (int j = 0; j < 20; j++) keep(malloc(64));
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    say("ok\n");
}
