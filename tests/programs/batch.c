// A program that computes without a pause, keeps its data in a list, and frees the list when it ends.
#include <stdlib.h>

struct node { struct node *next; long value; };
static struct node *list;

__attribute__((noinline)) void keep_node(long value) {
    struct node *node = malloc(sizeof *node);
    node->next = list, node->value = value, list = node;
}

int main(void) {
    volatile long sum = 0;
    for (long i = 0; i < 150000; i++) {
        keep_node(i);
        for (long j = 0; j < 20000; j++) sum += j ^ i;
    }
    while (list) {
        struct node *node = list;
        list = node->next;
        free(node);
    }
    return 0;
}
