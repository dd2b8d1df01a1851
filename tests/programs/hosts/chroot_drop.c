// A service that makes an empty directory its root, drops its privileges and runs on.
//#Needs: root
//#Trace: afterwards allocs=100 allocated_bytes=10000 frees=0
#include "check.h"
#include <grp.h>
#include <sys/stat.h>

NOINLINE void afterwards(void) { keep(malloc(100)); }

int main(void) {
    char jail[] = "/tmp/chroot_drop.XXXXXX";
    CHECK(mkdtemp(jail));
    exercise(500);
    CHECK(chdir(jail) == 0 && rmdir(jail) == 0);
    CHECK(chroot(".") == 0);
    CHECK(setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0);
    CHECK(access("/proc", F_OK) == -1 && setuid(0) == -1);
    for (int i = 0; i < 100; i++) {
        exercise(500);
        afterwards();
    }
    usleep(120000); // two periods; the recording must continue
    exercise(500);
    say("ok\n");
}
