// A parent and a child refer to each other by shared_ptr. So both objects stay allocated after the program
// has dropped its own references to them.
//
//#Expect: Leak in make_pair_of_nodes
//#Expect: nothing else
#include "pace.h"
#include <memory>

struct node {
    std::shared_ptr<node> other;
    char data[100];
};

NOINLINE void make_pair_of_nodes() {
    auto parent = std::make_shared<node>();
    auto child = std::make_shared<node>();
    parent->other = child;
    child->other = parent;
    keep(parent.get());
}

int main(int argc, char **argv) {
    pace p = pace_start(argc, argv, 5, 150);
    while (pace_next(&p)) make_pair_of_nodes();
}
