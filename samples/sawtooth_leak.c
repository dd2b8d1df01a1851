// Collects records, and three times a second it flushes and frees the records. But the program never frees
// every tenth record, so the low points of the curve rise: this is a leak.
//
//#Expect: Leak in make_record
//#Expect: nothing else
#include "pace.h"

enum { CAPACITY = 100 };
static void *records[CAPACITY];
static int used;

NOINLINE void *make_record(void) { return keep(malloc(256)); }

static void flush_records(void) {
    for (int i = 0; i < used; i++)
        if (i % 10) free(records[i]);
    used = 0;
}

int main(int argc, char **argv) {
    struct pace p = pace_start(argc, argv, 6, 300);
    while (pace_next(&p)) {
        records[used++] = make_record();
        if (used == CAPACITY) flush_records();
    }
}
