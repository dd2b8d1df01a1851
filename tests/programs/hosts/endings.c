// Ends in many ways with live allocations. The last slice, taken after the end, must contain all of them.
//#Run: return
//#Run: exit
//#Run: _exit
//#Run: pthread_exit
//#Run: exit_group
//#Run: abort
//#Run: kill
//#Run: term
//#Run: segv
//#Run: thread_exits
//#Trace: kept allocs=1000 allocated_bytes=100000 frees=500
#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

NOINLINE void *kept(void) { return keep(malloc(100)); }
static void *exits(void *unused) {
    (void)unused;
    exit(12);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    const char *how = argv[1];
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    for (int i = 0; i < 500; i++) {
        kept();
        free(kept());
    }
    say("ok\n");
    if (!strcmp(how, "return")) return 1;
    if (!strcmp(how, "exit")) exit(2);
    if (!strcmp(how, "_exit")) _exit(3);
    if (!strcmp(how, "pthread_exit")) pthread_exit(NULL);
    if (!strcmp(how, "exit_group")) syscall(SYS_exit_group, 5);
    if (!strcmp(how, "abort")) abort();
    if (!strcmp(how, "kill")) raise(SIGKILL);
    if (!strcmp(how, "term")) raise(SIGTERM);
    if (!strcmp(how, "segv")) *(volatile int *)keep(NULL) = 1;
    if (!strcmp(how, "thread_exits")) {
        pthread_t t;
        pthread_create(&t, NULL, exits, NULL);
        pthread_join(t, NULL);
    }
    return 99;
}
