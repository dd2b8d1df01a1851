// `session_leader [wait]` reports whether the program leads its session and its process group, whether it has
// a terminal, and whether it is in the foreground of this terminal. With `wait`, the program then waits until
// the terminal hangs up, and writes HUNG-UP to the file that HUP_FILE names.
//
// tests/tests/conditions/signals.rs records this program.
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void on_hangup(int signal) {
    (void)signal;
    int file = open(getenv("HUP_FILE"), O_WRONLY | O_CREAT, 0600);
    if (file < 0 || write(file, "HUNG-UP", 7) != 7) _exit(8);
    _exit(9);
}

int main(int argc, char **argv) {
    (void)argv;
    int terminal = open("/dev/tty", O_RDWR);
    printf("session %d group %d terminal %d foreground %d\n", getsid(0) == getpid(), getpgrp() == getpid(),
           terminal >= 0, terminal >= 0 && tcgetpgrp(terminal) == getpgrp());
    fflush(stdout);
    if (argc < 2) return 0;
    signal(SIGHUP, on_hangup);
    puts("READY");
    fflush(stdout);
    alarm(60);
    for (;;) pause();
}
