// The user already preloads a library. Under edleak, this library must stay in effect, also after an exec.
//#Env: LD_PRELOAD=$OUT/libuser_preload.so
//#Run: first
#include "check.h"

int main(int argc, char **argv) {
    CHECK(getppid() == 4242);
    exercise(1000);
    if (argc == 2) execl("/proc/self/exe", argv[0], (char *)NULL);
    say("ok\n");
}
