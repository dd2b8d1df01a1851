// Tries to execute a missing file and a file that is no program. The process then continues undisturbed.
//#Trace: afterwards allocs=10 allocated_bytes=1000 frees=0
#include "check.h"

NOINLINE void afterwards(void) { keep(malloc(100)); }

int main(void) {
    exercise(100);
    for (int i = 0; i < 10; i++) {
        CHECK(execl("/there/is/no/such/program", "x", (char *)NULL) == -1 && errno == ENOENT);
        CHECK(execl("/etc/passwd", "x", (char *)NULL) == -1 && (errno == EACCES || errno == ENOEXEC));
        afterwards();
    }
    say("ok\n");
}
