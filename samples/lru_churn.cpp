// An LRU cache of 200 entries for 1,000 keys, full after a second; then new entries replace old entries.
//
//#Expect: no leak
#include "pace.h"
#include <list>
#include <unordered_map>

struct entry { uint32_t key; char *value; };
static std::list<entry> by_age;
static std::unordered_map<uint32_t, std::list<entry>::iterator> by_key;

NOINLINE char *load_value() { return static_cast<char *>(keep(malloc(100 + pace_random() % 400))); }

NOINLINE void look_up(uint32_t key) {
    auto found = by_key.find(key);
    if (found != by_key.end()) {
        by_age.splice(by_age.begin(), by_age, found->second);
        return;
    }
    if (by_key.size() == 200) {
        free(by_age.back().value);
        by_key.erase(by_age.back().key);
        by_age.pop_back();
    }
    by_age.push_front({key, load_value()});
    by_key[key] = by_age.begin();
}

int main(int argc, char **argv) {
    pace p = pace_start(argc, argv, 6, 400);
    while (pace_next(&p)) look_up(pace_random() % 1000);
}
