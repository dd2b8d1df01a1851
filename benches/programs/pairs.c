/* `pairs THREADS LIVE PAIRS`: PAIRS times, each thread frees one of its LIVE allocations, chosen at random,
 * and makes a new allocation.
 *
 * With several threads, a thread frees an allocation of another thread in every fourth pair. So a quarter of
 * the frees happen in a thread that did not make the allocation. The program writes the thread CPU time per
 * pair, in nanoseconds, to the file $BENCH_OUT. The program measures CPU time and not wall time, because the
 * machine may have fewer cores than threads. If $BENCH_WAIT is set, the program waits for the end of
 * its input before it begins to measure. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static long threads, live, pairs;
static void *_Atomic *slots;
static double spent_ns[64];
static pthread_barrier_t ready;

static uint64_t next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static size_t size_of(uint64_t random) { return 16 + (random >> 40) % 257; }

static double cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * 1e9 + now.tv_nsec;
}

static void *work(void *argument) {
    long me = (long)argument;
    uint64_t state = 0x9E3779B97F4A7C15u * (me + 1);
    for (long i = 0; i < live; i++) slots[me * live + i] = malloc(size_of(next(&state)));
    char byte;
    while (me == 0 && getenv("BENCH_WAIT") && read(0, &byte, 1) > 0) {
    }
    pthread_barrier_wait(&ready);
    double start = cpu_ns();
    if (threads == 1) {
        void **mine = (void **)slots;
        for (long i = 0; i < pairs; i++) {
            uint64_t random = next(&state);
            long at = (long)((random & 0xffffffff) * (uint64_t)live >> 32);
            free(mine[at]);
            *(char *)(mine[at] = malloc(size_of(random))) = 1;
        }
    } else {
        for (long i = 0; i < pairs; i++) {
            uint64_t random = next(&state);
            long whose = i % 4 == 0 ? (me + 1) % threads : me;
            long at = whose * live + (long)((random & 0xffffffff) * (uint64_t)live >> 32);
            char *made = malloc(size_of(random));
            *made = 1;
            free(__atomic_exchange_n((void **)&slots[at], made, __ATOMIC_ACQ_REL));
        }
    }
    spent_ns[me] = cpu_ns() - start;
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 4 || !getenv("BENCH_OUT")) return 2;
    threads = atol(argv[1]), live = atol(argv[2]), pairs = atol(argv[3]);
    if (threads < 1 || threads > 64) return 2;
    slots = calloc((size_t)(threads * live), sizeof *slots);
    pthread_barrier_init(&ready, NULL, (unsigned)threads);
    pthread_t others[64];
    for (long i = 1; i < threads; i++) pthread_create(&others[i], NULL, work, (void *)i);
    work(NULL);
    for (long i = 1; i < threads; i++) pthread_join(others[i], NULL);
    double sum = 0;
    for (long i = 0; i < threads; i++) sum += spent_ns[i];
    FILE *out = fopen(getenv("BENCH_OUT"), "w");
    if (!out) return 3;
    fprintf(out, "%.3f\n", sum / (double)(threads * pairs));
    return fclose(out) != 0;
}
