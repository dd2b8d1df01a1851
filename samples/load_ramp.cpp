// Until the middle of the run, the number of requests in progress grows; then this number stays constant.
// Every request is freed.
//
//#Expect: no leak
#include "pace.h"

struct request { char body[700]; };
static request *in_flight[200];

NOINLINE request *accept_request() { return static_cast<request *>(keep(new request)); }

int main(int argc, char **argv) {
    pace p = pace_start(argc, argv, 6, 400);
    while (pace_next(&p)) {
        double load = pace_fraction(&p) < 0.5 ? 2 * pace_fraction(&p) : 1;
        uint32_t places = 1 + (uint32_t)(load * 199);
        request *&slot = in_flight[pace_random() % places];
        delete slot;
        slot = accept_request();
    }
}
