// Allocates on the smallest stacks: a thread with PTHREAD_STACK_MIN, and a signal handler with MINSIGSTKSZ.
#include "check.h"
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

static volatile sig_atomic_t handled;
static void handler(int signal) {
    (void)signal;
    free(keep(malloc(100)));
    free(keep(calloc(3, 50)));
    handled = 1;
}
static void *thread(void *unused) {
    for (int i = 0; i < 100; i++) free(keep(malloc((size_t)i)));
    return unused;
}

int main(void) {
    free(keep(malloc(100))); // makes the dynamic linker resolve the symbols on a large stack
    free(keep(calloc(3, 50)));
    size_t size = (size_t)sysconf(_SC_MINSIGSTKSZ) + 2048; // the minimum, plus the bytes that malloc needs
    char *stack = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(stack != MAP_FAILED && size + 4096 < 65536);
    CHECK(mprotect(stack, 4096, PROT_NONE) == 0); // a stack overflow causes a fault
    stack_t alternate = {.ss_sp = stack + 4096, .ss_size = size};
    CHECK(sigaltstack(&alternate, NULL) == 0);
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    CHECK(raise(SIGUSR1) == 0 && handled);

    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    CHECK(pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN) == 0);
    for (int i = 0; i < 50; i++) {
        pthread_t t;
        CHECK(pthread_create(&t, &attributes, thread, NULL) == 0);
        CHECK(pthread_join(t, NULL) == 0);
    }
    say("ok\n");
}
