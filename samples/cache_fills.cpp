// A cache that is filled in the first third of the run and then only read. The cache is never freed, but it
// stops growing, so it is not a leak.
//
//#Expect: no leak
#include "pace.h"
#include <unordered_map>

struct page { char data[500]; };
static std::unordered_map<uint32_t, page *> cache;
enum { PAGES = 400 };

NOINLINE page *load_page(uint32_t number) {
    page *&p = cache[number];
    if (!p) p = static_cast<page *>(keep(new page));
    return p;
}

int main(int argc, char **argv) {
    cache.reserve(PAGES);
    pace p = pace_start(argc, argv, 6, 200);
    while (pace_next(&p)) load_page((uint32_t)p.tick % PAGES);
}
