// A child whose recording begins inside dlopen. dlopen first frees the memory of an earlier error message.
//#Run:
//#Record: --children
#include "check.h"
#include <dlfcn.h>
#include <sys/wait.h>

static void in_a_child(void (*act)(void), int reads) {
    CHECK(!dlopen("/nonexistent.so", RTLD_NOW));
    if (reads) CHECK(dlerror());
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        act();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(!status);
}

static void tell(void) {
    const char *message = dlerror();
    say(message ? message : "no message");
    say("\n");
}

static void fail_again(void) {
    CHECK(!dlopen("/nonexistent2.so", RTLD_NOW));
    tell();
    tell();
}
static void allocate(void) {
    free(keep(malloc(100)));
    tell();
}
static void succeed(void) {
    CHECK(dlopen("libm.so.6", RTLD_NOW));
    tell();
}

int main(void) {
    for (int reads = 0; reads < 2; reads++) {
        in_a_child(fail_again, reads);
        in_a_child(allocate, reads);
        in_a_child(succeed, reads);
    }
}
