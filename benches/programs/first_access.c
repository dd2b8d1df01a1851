/* Prints how many page faults and how much time the first access to a fresh page costs, for each kind of
 * access. docs/performance.md has the figures.
 *
 *     cc -O2 -o first_access first_access.c && ./first_access
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

enum { PAGES = 4000, PAGE = 4096 };

static long page_faults(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
}

static double now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void read_then_write(volatile int *at) {
    if (*at == 0) *at = 1;
}

/* Accesses the page with one instruction that reads and writes memory, as edleak's library does. */
static void add_then_write(volatile int *at) {
    __asm__ volatile("addl $0, %0" : "+m"(*at));
    *at = 1;
}

static void write_only(volatile int *at) { *at = 1; }

static void nothing(volatile int *at) { (void)at; }

static void measure(const char *name, int flags, void (*access)(volatile int *)) {
    long faults = page_faults();
    double began = now_us();
    char *pages =
        mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (pages == MAP_FAILED) return;
    for (long i = 0; i < PAGES; i++) access((volatile int *)(pages + i * PAGE));
    double us = (now_us() - began) / PAGES;
    printf("%-22s %.2f page faults  %.2f us\n", name, (double)(page_faults() - faults) / PAGES, us);
    munmap(pages, (size_t)PAGES * PAGE);
}

int main(void) {
    measure("read, then write", 0, read_then_write);
    measure("add 0, then write", 0, add_then_write);
    measure("write only", 0, write_only);
    measure("MAP_POPULATE", MAP_POPULATE, nothing);
    return 0;
}
