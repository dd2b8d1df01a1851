// A timer fires every 50 µs. The signal handler of the timer maps memory, gives it back to the kernel and
// unmaps it. The handler may interrupt any call, even mmap.
//#Trace: in_handler allocs=3000 frees=3000
#include "check.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>

static volatile sig_atomic_t handled;

NOINLINE static char *in_handler(void) {
    return keep(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}
NOINLINE static char *in_main(size_t length) {
    return keep(mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

static void handler(int signal) {
    (void)signal;
    int saved = errno;
    if (handled < 3000) {
        char *p = in_handler();
        CHECK(p != MAP_FAILED && madvise(p, 4096, MADV_DONTNEED) == 0 && munmap(p, 4096) == 0);
        handled++;
    }
    errno = saved;
}

int main(void) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    struct itimerval fast = {{0, 50}, {0, 50}}, off = {{0, 0}, {0, 0}};
    CHECK(setitimer(ITIMER_REAL, &fast, NULL) == 0);
    for (unsigned i = 1; handled < 3000; i++) {
        size_t length = 4096 * (1 + i % 7);
        char *p = in_main(length);
        CHECK(p != MAP_FAILED);
        p[length - 1] = 1;
        CHECK(madvise(p, length, MADV_DONTNEED) == 0 && p[length - 1] == 0);
        CHECK(munmap(p, length) == 0);
    }
    CHECK(setitimer(ITIMER_REAL, &off, NULL) == 0);
    say("ok\n");
}
