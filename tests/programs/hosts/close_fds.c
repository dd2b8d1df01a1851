// A daemon that closes all inherited descriptors in two ways. edleak must not write into the daemon's files.
//#Trace: afterwards allocs=1000 allocated_bytes=100000 frees=0
#include "check.h"
#include <fcntl.h>
#include <sys/syscall.h>

NOINLINE void afterwards(void) { keep(malloc(100)); }

static void check_files(void) {
    // The file gets a closed descriptor. A library that still used the descriptor would write into it.
    char path[] = "/tmp/close_fds.XXXXXX";
    int files[64];
    files[0] = mkstemp(path);
    CHECK(files[0] == 3);
    for (int i = 1; i < 64; i++) CHECK((files[i] = open(path, O_RDWR | O_APPEND)) == 3 + i);
    exercise(2000);
    for (int i = 0; i < 500; i++) afterwards();
    usleep(120000); // two periods
    char content[16];
    CHECK(write(files[7], "mine", 4) == 4);
    CHECK(pread(files[0], content, sizeof content, 0) == 4 && memcmp(content, "mine", 4) == 0);
    unlink(path);
    for (int i = 0; i < 64; i++) CHECK(close(files[i]) == 0);
}

int main(void) {
    exercise(1000);
    CHECK(syscall(SYS_close_range, 3, ~0U, 0) == 0);
    check_files();
    for (int fd = 3; fd < 2000; fd++) CHECK(close(fd) == -1 && errno == EBADF);
    check_files();
    say("ok\n");
}
