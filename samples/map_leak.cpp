// Adds a session to a map at login; logout forgets to erase it.
//
//#Expect: Leak in login
//#Expect: nothing else
#include "pace.h"
#include <map>

struct session { char data[200]; };
// The map is never destroyed, as in services: an orderly exit would free everything and hide the leak.
static auto &sessions = *new std::map<long, session>;

NOINLINE void login(long user) { sessions[user].data[0] = 1; }

int main(int argc, char **argv) {
    pace p = pace_start(argc, argv, 5, 200);
    while (pace_next(&p)) login(p.tick);
}
