// Sets a low limit (address space, open files or file size) and executes itself, so the limit is set before
// the program starts. The dynamic linker and all libraries must work within the limit.
//#Run: as
//#Run: nofile
//#Run: fsize
#include "check.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

int main(int argc, char **argv) {
    exercise(1000);
    if (argc == 2) {
        struct rlimit as = {192 << 20, 192 << 20}, nofile = {4, 4}, fsize = {0, 0};
        if (!strcmp(argv[1], "as")) CHECK(setrlimit(RLIMIT_AS, &as) == 0);
        if (!strcmp(argv[1], "nofile")) CHECK(setrlimit(RLIMIT_NOFILE, &nofile) == 0);
        if (!strcmp(argv[1], "fsize")) CHECK(setrlimit(RLIMIT_FSIZE, &fsize) == 0);
        execl("/proc/self/exe", argv[0], argv[1], "limited", (char *)NULL);
        return 1;
    }
    CHECK(argc == 3);
    if (!strcmp(argv[1], "nofile")) {
        CHECK(open("/dev/null", O_RDONLY) == 3);
        CHECK(open("/dev/null", O_RDONLY) == -1 && errno == EMFILE);
    }
    if (!strcmp(argv[1], "fsize")) {
        signal(SIGXFSZ, SIG_IGN);
        FILE *file = tmpfile();
        CHECK(file && fputc('x', file) == 'x' && fflush(file) == EOF && errno == EFBIG);
    }
    for (int i = 0; i < 20; i++) exercise(5000);
    usleep(120000); // two periods
    exercise(5000);
    say("ok\n");
}
