// The simplest leak: in each tick the program adds one node to a list, and it never removes a node.
//
//#Expect: Leak in grow_list
//#Expect: nothing else
#include "pace.h"

struct node { struct node *next; char payload[120]; };
static struct node *head;

NOINLINE void grow_list(void) {
    struct node *n = keep(malloc(sizeof *n));
    n->next = head;
    head = n;
}

int main(int argc, char **argv) {
    struct pace p = pace_start(argc, argv, 5, 200);
    while (pace_next(&p)) grow_list();
}
