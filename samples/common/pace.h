// For all C and C++ samples: ticks on a monotonic clock, fixed random numbers, and `keep`.
//
// A sample counts ticks, not elapsed time. If the machine stalls, the sample is late and then makes the
// missed ticks at once. So two runs of a sample have exactly the same totals.
#pragma once
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NOINLINE __attribute__((noinline, noclone))

// Hides a pointer from the optimizer: the allocation stays, and the allocating call is not a tail call.
static inline void *keep(void *p) {
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

struct pace {
    struct timespec next;
    long period_ns;
    long tick;  // the current tick, from 0
    long ticks; // number of ticks
};

// Makes `hz` ticks per second for `seconds`, or for N seconds if the arguments are `--seconds N`.
static inline struct pace pace_start(int argc, char **argv, double seconds, long hz) {
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], "--seconds") == 0) seconds = atof(argv[i + 1]);
    struct pace p;
    clock_gettime(CLOCK_MONOTONIC, &p.next);
    p.period_ns = 1000000000L / hz;
    p.tick = -1;
    p.ticks = (long)(seconds * (double)hz);
    return p;
}

// Waits for the next tick. Returns false after the last tick.
static inline int pace_next(struct pace *p) {
    if (++p->tick >= p->ticks) return 0;
    p->next.tv_nsec += p->period_ns;
    while (p->next.tv_nsec >= 1000000000L) {
        p->next.tv_nsec -= 1000000000L;
        p->next.tv_sec++;
    }
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &p->next, NULL) == EINTR) {}
    return 1;
}

// The part of the run that has passed, from 0 to 1.
static inline double pace_fraction(const struct pace *p) { return (double)p->tick / (double)p->ticks; }

// Returns random numbers. Their sequence is the same in every run (xorshift64).
static inline uint32_t pace_random(void) {
    static uint64_t state = 0x9e3779b97f4a7c15u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32);
}
