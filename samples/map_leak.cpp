// Adds a session to a map at each login. At logout the program forgets to erase the session.
//
//#Expect: Leak in login
//#Expect: nothing else
#include "pace.h"
#include <map>

struct session { char data[200]; };
// The program never destroys the map, as in a service. Destroying the map at exit would hide the leak.
static auto &sessions = *new std::map<long, session>;

NOINLINE void login(long user) { sessions[user].data[0] = 1; }

int main(int argc, char **argv) {
    pace p = pace_start(argc, argv, 5, 200);
    while (pace_next(&p)) login(p.tick);
}
