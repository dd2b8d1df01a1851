/* `successors THREADS BLOCKS PAIRS GENERATIONS`: threads end, and their successors inherit their blocks.
 *
 * This program follows the pattern of the benchmark larson, which imitates a server. Each of THREADS threads
 * has BLOCKS blocks. PAIRS times, a thread frees one of its blocks, chosen at random, and allocates a new
 * block of 8 to 1,000 bytes. Then the thread starts a new thread, gives its blocks to the new thread, and
 * ends. In all, GENERATIONS generations of threads run. The main thread makes the first blocks and gives them
 * to the threads in random order, so that neighbouring blocks belong to different threads.
 *
 * The program writes the CPU time of the whole process per pair, in nanoseconds, to the file $BENCH_OUT. CPU
 * time is measured and not wall time, because the machine may have fewer cores than threads. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MAX_THREADS = 64 };

struct line {
    uint64_t state;
    long left;
    char **blocks;
};

static long threads, blocks, pairs, generations;
static struct line lines[MAX_THREADS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t line_ended = PTHREAD_COND_INITIALIZER;
static long ended;

static uint64_t next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static char *make(uint64_t random) {
    size_t size = 8 + (random >> 40) % 993;
    char *made = malloc(size);
    if (!made) abort();
    made[0] = made[size - 1] = 1;
    return made;
}

static double cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * 1e9 + now.tv_nsec;
}

static void *work(void *argument) {
    struct line *mine = argument;
    /* The state of the random numbers is a local variable, because the structs of two threads share a cache
     * line, and writes to a shared cache line are slow. */
    uint64_t state = mine->state;
    char **at = mine->blocks;
    for (long i = 0; i < pairs; i++) {
        uint64_t random = next(&state);
        long which = (long)((random & 0xffffffff) * (uint64_t)blocks >> 32);
        free(at[which]);
        at[which] = make(random);
    }
    mine->state = state;
    if (--mine->left > 0) {
        pthread_t successor;
        if (pthread_create(&successor, NULL, work, mine)) abort();
        pthread_detach(successor);
        return NULL;
    }
    pthread_mutex_lock(&lock);
    ended++;
    pthread_cond_signal(&line_ended);
    pthread_mutex_unlock(&lock);
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 5 || !getenv("BENCH_OUT")) return 2;
    threads = atol(argv[1]), blocks = atol(argv[2]), pairs = atol(argv[3]), generations = atol(argv[4]);
    if (threads < 1 || threads > MAX_THREADS || blocks < 1 || pairs < 1 || generations < 1) return 2;
    long count = threads * blocks;
    char **all = malloc((size_t)count * sizeof *all);
    if (!all) return 3;
    uint64_t state = 0x9E3779B97F4A7C15u;
    for (long i = 0; i < count; i++) all[i] = make(next(&state));
    for (long i = count - 1; i > 0; i--) {
        long other = (long)(next(&state) % (uint64_t)(i + 1));
        char *block = all[i];
        all[i] = all[other], all[other] = block;
    }
    double start = cpu_ns();
    for (long i = 0; i < threads; i++) {
        lines[i] = (struct line){0x9E3779B97F4A7C15u * (uint64_t)(i + 1), generations, all + i * blocks};
        pthread_t first;
        if (pthread_create(&first, NULL, work, &lines[i])) return 3;
        pthread_detach(first);
    }
    pthread_mutex_lock(&lock);
    while (ended < threads) pthread_cond_wait(&line_ended, &lock);
    pthread_mutex_unlock(&lock);
    double spent = cpu_ns() - start;
    FILE *out = fopen(getenv("BENCH_OUT"), "w");
    if (!out) return 3;
    fprintf(out, "%.3f\n", spent / (double)(threads * pairs * generations));
    return fclose(out) != 0;
}
