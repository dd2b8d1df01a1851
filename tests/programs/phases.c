// A service in phases. An argument is KIND:SECONDS[:RATE]. A request of `l`, `u` or `d` leaks 300 bytes.
//
//   l    load
//   u    load that rises
//   d    load that falls
//   w    load without leak
//   c    load with a cache of 1,000 entries
//   h    health checks
//   i    idle
//   f    all sessions are freed, evenly over the time
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#define NOINLINE __attribute__((noinline, noclone))

struct session { struct session *next; char state[292]; };
static struct session *sessions;
static long open_sessions;
static void *cache[1000];
static void *volatile sink;

NOINLINE void session_open(void) {
    struct session *s = malloc(sizeof *s);
    s->next = sessions, sessions = s, open_sessions++;
}

NOINLINE void session_close(void) {
    struct session *s = sessions;
    sessions = s->next, open_sessions--;
    free(s);
}

NOINLINE void cache_insert(unsigned key) { cache[key] = malloc(500); }

NOINLINE void serve(void) {
    void *request = malloc(2000), *response = malloc(5000);
    sink = request, sink = response;
    free(request), free(response);
}

NOINLINE void health_check(void) {
    void *answer = malloc(100);
    sink = answer;
    free(answer);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void wait_until(double end) {
    double left = end - now();
    struct timespec t = {(time_t)left, (long)((left - (double)(time_t)left) * 1e9)};
    if (left > 0) nanosleep(&t, NULL);
}

int main(int argc, char **argv) {
    unsigned random = 1;
    for (int phase = 1; phase < argc; phase++) {
        char kind;
        double seconds = 1, rate = 200, begin = now(), passed = 0;
        sscanf(argv[phase], "%c:%lf:%lf", &kind, &seconds, &rate);
        if (kind == 'f') rate = (double)open_sessions / seconds;
        if (kind == 'i') wait_until(begin + seconds);
        while (kind != 'i' && passed < seconds) {
            double share = passed / seconds;
            passed += 1 / (kind == 'u' ? rate * share + 1 : kind == 'd' ? rate * (1 - share) + 1 : rate);
            wait_until(begin + passed);
            if (kind == 'h') health_check();
            if (kind == 'f' && sessions) session_close();
            if (!strchr("ludwc", kind)) continue;
            serve();
            random = random * 1103515245 + 12345;
            unsigned key = random >> 8;
            if (kind == 'c' && !cache[key % 1000]) cache_insert(key % 1000);
            if (kind != 'w' && kind != 'c') session_open();
        }
        if (kind == 'f') while (sessions) session_close();
    }
    puts("done");
    return fflush(stdout);
}
