// A program that starts with standard input, output and error closed. So the first file that the program
// opens gets descriptor 0.
//#Run: first
#include "check.h"
#include <fcntl.h>
#include <sys/wait.h>

int main(int argc, char **argv) {
    exercise(500);
    if (argc == 2) {
        int answer[2];
        CHECK(pipe(answer) == 0 && answer[1] == 4);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            close(0), close(1), close(2), close(answer[0]);
            execl("/proc/self/exe", argv[0], "with", "closed", (char *)NULL);
            _exit(1);
        }
        close(answer[1]);
        char byte;
        int status;
        CHECK(read(answer[0], &byte, 1) == 1 && byte == 'k');
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        say("ok\n");
        return 0;
    }
    // The program has only descriptor 4 open, so the next four files get the descriptors 0 to 3.
    for (int expected = 0; expected < 4; expected++) CHECK(open("/dev/null", O_RDWR) == expected);
    exercise(500);
    CHECK(write(4, "k", 1) == 1);
}
