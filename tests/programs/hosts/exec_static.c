// A recorded program executes one that edleak cannot record. edleak must not disturb the executed program.
#include "check.h"
#include <limits.h>

int main(void) {
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    CHECK(n > 0);
    path[n] = 0;
    strcpy(strrchr(path, '/') + 1, "helper_static");
    exercise(1000);
    execl(path, path, (char *)NULL);
    return 1;
}
