// Executes itself again and again, a few milliseconds after each start, while other threads wait.
//
//   attach_execs [COUNT]
//
// COUNT is the number of executions so far. Every second execution is called by the main thread, the others
// by another thread. Prints `running` at the first start. Prints `sound` and ends when standard input has
// ended.
//
//#Build: -O1 -pthread -Wno-unused-result
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int ends[2];
static char count[16];

static void *wait_in_read(void *unused) {
    char byte;
    read(ends[0], &byte, 1);
    return unused;
}

static void *execute(void *unused) {
    char *arguments[] = {"attach_execs", count, NULL};
    execv("/proc/self/exe", arguments);
    abort();
    return unused;
}

int main(int argc, char **argv) {
    int executions = argc > 1 ? atoi(argv[1]) : 0;
    if (executions == 0) write(1, "running\n", 8);
    snprintf(count, sizeof count, "%d", executions + 1);
    if (pipe2(ends, O_CLOEXEC)) abort();
    pthread_t thread;
    for (int i = 0; i < 4; i++) pthread_create(&thread, NULL, wait_in_read, NULL);
    struct pollfd input = {.fd = 0, .events = POLLIN};
    if (poll(&input, 1, executions % 8)) {
        write(1, "sound\n", 6);
        _exit(0);
    }
    if (executions % 2) {
        pthread_create(&thread, NULL, execute, NULL);
        pthread_join(thread, NULL);
    }
    execute(NULL);
}
