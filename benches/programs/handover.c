/* `handover THREADS BATCHES`: half of the threads only allocate, and the other half only free.
 *
 * This program follows the pattern of xmalloc-test. An allocating thread makes BATCHES batches of 4,096
 * blocks of 16 to 127 bytes and puts each batch into a queue. A freeing thread takes a batch from the queue
 * and frees its blocks and the batch itself. So every free happens in a thread that did not make the
 * allocation. If the queue holds two batches per thread, the allocating threads wait until it holds fewer.
 *
 * The program writes the CPU time of the whole process per pair, in nanoseconds, to the file $BENCH_OUT. CPU
 * time is measured and not wall time, because the machine may have fewer cores than threads. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { BLOCKS = 4096, MAX_THREADS = 64 };

struct batch {
    struct batch *next;
    char *blocks[BLOCKS];
};

static long threads, batches;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t has_batch = PTHREAD_COND_INITIALIZER, has_room = PTHREAD_COND_INITIALIZER;
static struct batch *queue;
static long queued, to_take;

static double cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * 1e9 + now.tv_nsec;
}

static void *allocate(void *argument) {
    uint64_t state = 0x9E3779B97F4A7C15u * (uint64_t)((long)argument + 1);
    for (long n = 0; n < batches; n++) {
        struct batch *batch = malloc(sizeof *batch);
        if (!batch) abort();
        for (long i = 0; i < BLOCKS; i++) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            char *made = malloc(16 + (state >> 40) % 112);
            if (!made) abort();
            *made = 1;
            batch->blocks[i] = made;
        }
        pthread_mutex_lock(&lock);
        while (queued >= 2 * threads) pthread_cond_wait(&has_room, &lock);
        batch->next = queue, queue = batch, queued++;
        pthread_cond_signal(&has_batch);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void *release(void *unused) {
    for (;;) {
        pthread_mutex_lock(&lock);
        while (!queue && to_take > 0) pthread_cond_wait(&has_batch, &lock);
        struct batch *batch = queue;
        if (batch) {
            queue = batch->next, queued--;
            /* After the last batch, wake all freeing threads, because no batch follows. */
            if (--to_take == 0) pthread_cond_broadcast(&has_batch);
            pthread_cond_signal(&has_room);
        }
        pthread_mutex_unlock(&lock);
        if (!batch) return unused;
        for (long i = 0; i < BLOCKS; i++) free(batch->blocks[i]);
        free(batch);
    }
}

int main(int argc, char **argv) {
    if (argc != 3 || !getenv("BENCH_OUT")) return 2;
    threads = atol(argv[1]), batches = atol(argv[2]);
    if (threads < 2 || threads > MAX_THREADS || threads % 2 || batches < 1) return 2;
    to_take = threads / 2 * batches;
    long pairs = to_take * BLOCKS;
    pthread_t started[MAX_THREADS];
    double start = cpu_ns();
    for (long i = 0; i < threads; i++)
        if (pthread_create(&started[i], NULL, i % 2 ? release : allocate, (void *)i)) return 3;
    for (long i = 0; i < threads; i++) pthread_join(started[i], NULL);
    double spent = cpu_ns() - start;
    FILE *out = fopen(getenv("BENCH_OUT"), "w");
    if (!out) return 3;
    fprintf(out, "%.3f\n", spent / (double)pairs);
    return fclose(out) != 0;
}
