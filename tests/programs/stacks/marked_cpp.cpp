// Allocates once, with a special size: inside a catch, a template, a virtual call, a lambda and std::sort.
//
//#Build: -fomit-frame-pointer -fno-optimize-sibling-calls
#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <vector>

void *volatile kept;

struct base {
    virtual ~base() = default;
    virtual void visit(int depth) = 0;
};

template <int N> struct node : base {
    __attribute__((noinline)) void visit(int depth) override {
        if (depth > 0) return visit(depth - 1); // recursion
        try {
            throw std::runtime_error("x");
        } catch (const std::exception &) {
            kept = operator new(54321); // in the handler
        }
    }
};

int main() {
    std::vector<int> items;
    for (int i = 0; i < 100; i++) items.push_back(i * 37 % 100);
    node<4> leaf;
    base *volatile visitor = &leaf;
    bool done = false;
    std::sort(items.begin(), items.end(), [&](int left, int right) {
        if (!done) visitor->visit(3); // virtual
        done = true;
        return left < right;
    });
    return items[0];
}
