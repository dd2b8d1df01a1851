// One request in ten causes an error. The code that handles it returns without deleting the request.
//
//#Expect: Leak in accept_request
//#Expect: nothing else
#include "pace.h"

struct request { char body[400]; };
static request *in_flight[20];

NOINLINE request *accept_request() { return static_cast<request *>(keep(new request)); }

static void finish(request *r, bool failed) {
    if (failed) return;
    delete r;
}

int main(int argc, char **argv) {
    pace p = pace_start(argc, argv, 6, 300);
    while (pace_next(&p)) {
        request *&slot = in_flight[p.tick % 20];
        if (slot) finish(slot, p.tick % 10 == 3);
        slot = accept_request();
    }
}
