// A timer fires every 50 µs, and its handler allocates in the middle of any code of the program. The
// allocator of this program permits allocations in a signal handler, so edleak must permit them, too.
//#Build: $OUT/libsignal_safe_malloc.so -Wl,-rpath,$OUT
//#Trace: in_handler allocs=5000 allocated_bytes=220000 frees=5000
//#Trace: in_main live_bytes=0
#include "check.h"
#include <signal.h>
#include <sys/time.h>

static volatile sig_atomic_t handled;

NOINLINE void *in_handler(void) { return keep(malloc(44)); }
NOINLINE void *in_main(size_t size) { return keep(malloc(size)); }

static void handler(int signal) {
    (void)signal;
    int saved = errno;
    if (handled < 5000) {
        free(in_handler());
        handled++;
    }
    errno = saved;
}

int main(void) {
    free(in_main(1));
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    struct itimerval fast = {{0, 50}, {0, 50}}, off = {{0, 0}, {0, 0}};
    CHECK(setitimer(ITIMER_REAL, &fast, NULL) == 0);
    for (unsigned i = 0; handled < 5000; i++) {
        void *p = in_main(i % 300);
        CHECK(p);
        free(p);
    }
    CHECK(setitimer(ITIMER_REAL, &off, NULL) == 0);
    say("ok\n");
}
