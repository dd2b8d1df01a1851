// Starts children whose malloc takes precedence over edleak's: their own, or one that a script preloads. If a
// child has such a malloc, edleak must pass all calls to it.
//#Run:
//#Record: --children
#include "allocate_everything.h"
#include <sys/wait.h>

static void start(const char *program, const char *preloaded) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        if (preloaded) {
            const char *others = getenv("LD_PRELOAD");
            std::string all = std::string(preloaded) + ":" + (others ? others : "");
            setenv("LD_PRELOAD", all.c_str(), 1);
        }
        execl(program, program, "child", (char *)nullptr);
        _exit(97);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    if (status) say("a child failed\n");
}

int main(int argc, char **argv) {
    if (argc == 2) {
        allocate_everything();
        say("ok\n");
        return 0;
    }
    std::string self = argv[0];
    std::string here = self.substr(0, self.rfind('/') + 1);
    start((here + "helper_own_malloc").c_str(), nullptr);
    start(argv[0], (here + "libchecking_malloc.so").c_str());
}
