// The side table is much larger than a small heap. A recorded child counts the allocations that it inherited,
// and must read only used pages of the side table. The test counts page faults, because times vary.
//#Record: --children
//#Trace: parent allocs=1000 frees=0
#include "check.h"
#include <sys/resource.h>
#include <sys/wait.h>

static void *held[1000];
NOINLINE static void parent(int i) { held[i] = keep(malloc(100)); }

int main() {
    for (int i = 0; i < 1000; i++) parent(i);
    for (int i = 0; i < 5; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            free(keep(malloc(100)));
            struct rusage usage;
            CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
            CHECK(usage.ru_minflt < 1500);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    say("ok\n");
}
