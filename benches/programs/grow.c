/* `grow BLOCKS system|faults`: a heap that only grows, by BLOCKS blocks of 48 bytes.
 *
 * To the file $BENCH_OUT, the program writes its system time in milliseconds (`system`) or its number of page
 * faults (`faults`) during the growth. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

int main(int argc, char **argv) {
    if (argc != 3 || !getenv("BENCH_OUT")) return 2;
    long blocks = atol(argv[1]);
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    for (long i = 0; i < blocks; i++) {
        char *made = malloc(48);
        if (!made) return 3;
        memset(made, 1, 48);
    }
    getrusage(RUSAGE_SELF, &after);
    double system_ms = (double)(after.ru_stime.tv_sec - before.ru_stime.tv_sec) * 1e3 +
                       (double)(after.ru_stime.tv_usec - before.ru_stime.tv_usec) / 1e3;
    double faults = (double)(after.ru_minflt - before.ru_minflt);
    FILE *out = fopen(getenv("BENCH_OUT"), "w");
    if (!out) return 3;
    fprintf(out, "%.3f\n", strcmp(argv[2], "faults") ? system_ms : faults);
    return fclose(out) != 0;
}
