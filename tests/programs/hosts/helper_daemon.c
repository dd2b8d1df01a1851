// Becomes a daemon: the parent ends at once, and the daemon allocates later. tests/tests/hosts.rs records
// this program.
#include "check.h"
#include <unistd.h>

NOINLINE void *in_daemon(void) { return keep(malloc(1000)); }

int main(void) {
    if (fork()) _exit(0);
    setsid();
    usleep(300000);
    for (int i = 0; i < 40; i++) in_daemon();
    usleep(100000);
    return 7;
}
