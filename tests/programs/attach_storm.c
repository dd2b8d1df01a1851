// Allocates in two threads while a timer signal interrupts the threads every 200 microseconds.
//
//   attach_storm [forks|threads]
//
//   forks    also forks children that allocate, one after the other
//   threads  also starts threads, each of which allocates and ends after some microseconds; eight of them
//            live at the same time
//
// Reads standard input to its end, then prints `sound`. Ends with SIGABRT if the content of a block changed.
//
//#Build: -O1 -pthread -Wno-unused-result
#include <poll.h>
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

// Allocates, waits until start_threads writes to the pipe, and allocates again.
static void *live_shortly(void *pipe) {
    char byte;
    round_of(1);
    if (read(*(int *)pipe, &byte, 1) != 1) abort();
    round_of(2);
    return NULL;
}

static void *start_threads(void *unused) {
    int ends[2];
    if (pipe(ends)) abort();
    while (!is_over) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, live_shortly, ends)) abort();
        usleep(50);
        if (write(ends[1], "x", 1) != 1) abort();
        pthread_join(thread, NULL);
    }
    return unused;
}

// Waits until standard input has bytes or has ended. The main thread waits in poll and not in read, because
// the collector tries the threads in read first. So it tries the threads that end.
static void wait_in_poll(void) {
    struct pollfd input = {.fd = 0, .events = POLLIN};
    while (poll(&input, 1, -1) < 0) {
    }
}

int main(int argc, char **argv) {
    const char *kind = argc > 1 ? argv[1] : "";
    struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval timer = {{0, 200}, {0, 200}};
    setitimer(ITIMER_REAL, &timer, NULL);
    pthread_t threads[10];
    int count = 0;
    while (count < 2) pthread_create(&threads[count++], NULL, work, NULL);
    if (!strcmp(kind, "forks")) pthread_create(&threads[count++], NULL, fork_loop, NULL);
    while (!strcmp(kind, "threads") && count < 10)
        pthread_create(&threads[count++], NULL, start_threads, NULL);
    printf("running\n");
    fflush(stdout);
    if (!strcmp(kind, "threads")) wait_in_poll();
    char byte;
    while (read(0, &byte, 1) > 0) {
    }
    is_over = 1;
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
    printf("sound\n");
    return 0;
}
