// Tests the wrappers that C++ programs use (functions that allocate for their caller). Each function
// `case_NAME` calls one wrapper, and edleak must name `case_NAME` as the site of the allocation.
#include <cstring>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

extern "C" void arm();
static const void *volatile sink;
static const char *const text = "a text that is too long for the buffer in the string itself";

struct Item {
    int values[30];
    bool operator<(const Item &other) const { return values[0] < other.values[0]; }
};

struct Thrown : std::exception {
    char room[100];
};

using Items = std::map<int, Item>;
using Counts = std::map<std::string, int>;
using Hashed = std::unordered_map<int, Item>;

#define CASE(name, prepare, ...) \
    extern "C" __attribute__((noinline)) void case_##name() { \
        prepare; \
        arm(); \
        __VA_ARGS__; \
        sink = nullptr; \
    }

CASE(new, , sink = new Item)
CASE(new_array, , sink = new Item[3])
CASE(vector_push, static std::vector<int> v, v.push_back(3))
CASE(vector_growth, static std::vector<Item> v(3), v.push_back(Item{}))
CASE(vector_resize, static std::vector<int> v(3), v.resize(300))
CASE(vector_of_strings, static std::vector<std::string> v(3, text), static auto copy = v)
CASE(map_insert, static Items m, m[3].values[0] = 4)
CASE(map_of_strings, static Counts m; static std::string key = text, m[key] = 4)
CASE(set_insert, static std::set<Item> s, s.insert(Item{}))
CASE(unordered_insert, static Hashed m, m[3].values[0] = 4)
CASE(string_append, static std::string s, s += text)
CASE(string_copy, static std::string s = text, static std::string copy = s)
CASE(string_plus, static std::string s = "a", static std::string sum = s + text)
CASE(to_string, , static std::string s = std::to_string(1e100))
CASE(deque_push, static std::deque<int> d(127), d.push_back(3))
CASE(list_push, static std::list<Item> l, l.push_back(Item{}))
CASE(make_shared, , static auto p = std::make_shared<Item>())
CASE(make_unique, , static auto p = std::make_unique<Item>())
CASE(function, Item item{}, static std::function<int()> f = [item] { return item.values[3]; })
CASE(ostringstream, static std::ostringstream s, s << text << 3)
CASE(thread, , static std::thread t([] {}))
CASE(exception, , try { throw Thrown(); } catch (const Thrown &thrown) { sink = &thrown; })

int main(int count, char **words) {
    if (count < 2) return 2;
#define RUN(name) if (!std::strcmp(words[1], #name)) case_##name();
    RUN(new) RUN(new_array) RUN(vector_push) RUN(vector_growth) RUN(vector_resize) RUN(vector_of_strings)
    RUN(map_insert) RUN(map_of_strings) RUN(set_insert) RUN(unordered_insert) RUN(string_append)
    RUN(string_copy) RUN(string_plus) RUN(to_string) RUN(deque_push) RUN(list_push) RUN(make_shared)
    RUN(make_unique) RUN(function) RUN(ostringstream) RUN(thread) RUN(exception)
    return 1;
}
