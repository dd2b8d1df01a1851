// `forgotten_threads N` starts N threads that end at once. The program neither joins nor detaches the
// threads. libc frees the memory of a thread only after a join or a detach.
//#Build: -pthread
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void *work(void *nothing) { return nothing; }

__attribute__((noinline)) static void start_and_forget(pthread_attr_t *attributes) {
    pthread_t thread;
    if (pthread_create(&thread, attributes, work, NULL)) exit(9);
    __asm__ volatile("" ::: "memory"); // keeps the call from becoming a jump (a tail call)
}

int main(int argc, char **argv) {
    int times = argc > 1 ? atoi(argv[1]) : 200;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 << 10);
    for (int i = 0; i < times; i++) {
        start_and_forget(&attributes);
        usleep(10000);
    }
    puts("ok");
    return 0;
}
