// Four threads allocate and then free nearly everything. Every fiftieth allocation stays, so glibc cannot
// return the memory. Prints the free bytes of all arenas, without the fast bins, as glibc counts them. Then
// the program waits, so that edleak has time to read the state of the arenas.
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
    // The last allocation is never freed: its memory would join the unused end of the arena.
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
