// Three threads and the main thread allocate, and free nearly everything. Every fiftieth allocation stays, so
// glibc cannot return the memory. Prints the free bytes of all arenas as glibc counts them, without its fast
// bins; then the program waits, so that edleak reads the arenas.
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { THREADS = 3, EACH = 2000, BYTES = 2000 };
static pthread_barrier_t done;

static void work(void) {
    char *held[EACH];
    for (int i = 0; i < EACH; i++) held[i] = memset(malloc(BYTES), 1, BYTES);
    // The last allocation stays, so the memory before it does not become part of the rest of the arena.
    for (int i = 0; i < EACH; i++)
        if (i % 50 != 49) free(held[i]);
}

static void *thread(void *argument) {
    work();
    pthread_barrier_wait(&done);
    pause();
    return argument;
}

int main(void) {
    pthread_barrier_init(&done, NULL, THREADS + 1);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, thread, NULL);
    work();
    pthread_barrier_wait(&done);
    struct mallinfo2 info = mallinfo2();
    printf("%zu\n", info.fordblks - info.fsmblks);
    fflush(stdout);
    sleep(5);
    return 0;
}
