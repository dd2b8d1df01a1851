// Fills a cache in the first third of the run, and then only reads from the cache. The program never frees
// the cache, but the cache stops growing. So the cache is not a leak.
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
