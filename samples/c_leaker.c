// A small C service that never closes the sessions in a linked list, and has a cache that fills up and stays.
//
//#Expect: Leak in open_session
//#Expect: nothing else
#include "pace.h"

struct session { struct session *next; char user[32]; char state[200]; };
static struct session *sessions;

NOINLINE void open_session(unsigned user) {
    struct session *s = keep(calloc(1, sizeof *s));
    snprintf(s->user, sizeof s->user, "user-%u", user);
    s->next = sessions;
    sessions = s;
}

static char *cache[256];

NOINLINE void cache_page(unsigned page) {
    if (!cache[page]) cache[page] = keep(malloc(1024));
}

NOINLINE void answer(void) { free(keep(malloc(300))); }

int main(int argc, char **argv) {
    struct pace p = pace_start(argc, argv, 6, 200);
    while (pace_next(&p)) {
        answer();
        cache_page((unsigned)p.tick % 256);
        if (p.tick % 2) open_session((unsigned)p.tick);
    }
}
