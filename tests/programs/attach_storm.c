// Allocates in two threads while a timer signal interrupts the threads every 200 microseconds. Also forks
// children that allocate.
//
//   attach_storm [forks]
//
// Reads standard input to its end, then prints `sound`. Ends with SIGABRT if the content of a block changed.
//
//#Build: -O1 -pthread -Wno-unused-result
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int is_over = 0;
static volatile uint64_t signals = 0;

static void on_timer(int signal) {
    (void)signal;
    signals++;
}

static void round_of(unsigned n) {
    size_t size = 16 + n * 37 % 3000;
    unsigned char *p = malloc(size);
    memset(p, (unsigned char)n, size);
    unsigned char *zeros = calloc(7, 11);
    for (int i = 0; i < 77; i++) if (zeros[i]) abort();
    p = realloc(p, size * 2);
    for (size_t i = 0; i < size; i++) if (p[i] != (unsigned char)n) abort();
    void *aligned;
    if (posix_memalign(&aligned, 256, size)) abort();
    if ((uintptr_t)aligned % 256) abort();
    free(aligned), free(zeros), free(p);
}

static void *work(void *unused) {
    for (unsigned n = 0; !is_over; n++) round_of(n);
    return unused;
}

static void *fork_loop(void *unused) {
    while (!is_over) {
        pid_t child = fork();
        if (child == 0) {
            for (unsigned n = 0; n < 50; n++) round_of(n);
            _exit(7);
        }
        int status = 0;
        while (waitpid(child, &status, 0) < 0) {
        }
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 7) {
            fprintf(stderr, "child: %x\n", status);
            abort();
        }
    }
    return unused;
}

int main(int argc, char **argv) {
    (void)argv;
    struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval timer = {{0, 200}, {0, 200}};
    setitimer(ITIMER_REAL, &timer, NULL);
    pthread_t threads[3];
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, work, NULL);
    if (argc > 1) pthread_create(&threads[2], NULL, fork_loop, NULL);
    printf("running\n");
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0) {
    }
    is_over = 1;
    for (int i = 0; i < (argc > 1 ? 3 : 2); i++) pthread_join(threads[i], NULL);
    printf("sound\n");
    return 0;
}
