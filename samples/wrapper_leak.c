// Six functions call xmalloc, and one of the six leaks. edleak steps over xmalloc and reports parse_header.
//
//#Expect: Leak in parse_header
//#Expect: nothing else
//#Record: --wrapper xmalloc
#include "pace.h"

NOINLINE void *xmalloc(size_t size) {
    void *p = keep(malloc(size));
    if (!p) abort();
    return p;
}

#define PASSING(name, bytes)                                                                                 \
    NOINLINE void name(void) {                                                                               \
        void *p = keep(xmalloc(bytes));                                                                      \
        free(p);                                                                                             \
    }
PASSING(parse_body, 300)
PASSING(parse_cookie, 40)
PASSING(parse_query, 80)
PASSING(parse_trailer, 60)

static void *window[64];
NOINLINE void keep_recent(long tick) {
    free(window[tick % 64]);
    window[tick % 64] = keep(xmalloc(128));
}

NOINLINE void parse_header(void) { keep(xmalloc(100)); }

int main(int argc, char **argv) {
    struct pace p = pace_start(argc, argv, 5, 200);
    while (pace_next(&p)) {
        parse_header();
        parse_body();
        parse_cookie();
        parse_query();
        parse_trailer();
        keep_recent(p.tick);
    }
}
