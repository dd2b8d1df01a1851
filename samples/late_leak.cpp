// Frees each request after answering it, so nothing leaks in the first 40 % of the run. After 40 %, the
// program switches on a feature that keeps the audit line of every request.
//
//#Expect: Leak in keep_audit_line
//#Expect: nothing else
#include "pace.h"

static void *in_flight[32];

NOINLINE void answer_request(long tick) {
    void *&slot = in_flight[tick % 32];
    free(slot);
    slot = keep(malloc(512));
}

NOINLINE void keep_audit_line() { keep(malloc(90)); }

int main(int argc, char **argv) {
    pace p = pace_start(argc, argv, 6, 200);
    while (pace_next(&p)) {
        answer_request(p.tick);
        if (pace_fraction(&p) > 0.4) keep_audit_line();
    }
}
