// Executes itself with an empty environment. edleak cannot record this second run, and must not disturb it.
//#Run: first
#include "check.h"

int main(int argc, char **argv) {
    exercise(500);
    if (argc == 2) {
        char *arguments[] = {argv[0], NULL}, *environment[] = {NULL};
        execve("/proc/self/exe", arguments, environment);
        return 1;
    }
    CHECK(getenv("LD_PRELOAD") == NULL);
    say("ok\n");
    return 6;
}
