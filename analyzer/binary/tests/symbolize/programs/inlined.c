/* Inlined functions, a recursion, a switch and a loop: a reader of line tables may make mistakes here. */
#include <stdio.h>
#include <stdlib.h>

int checksum(const unsigned char *bytes, unsigned length); /* other.c */

struct node { struct node *next; int value; };

static inline struct node *new_node(int value) {
    struct node *node = malloc(sizeof *node);
    if (!node)
        abort();
    node->value = value;
    return node;
}

static inline void push(struct node **list, int value) {
    struct node *node = new_node(value);
    node->next = *list;
    *list = node;
}

static inline int helper(int value) { return value * 3 + 1; }

static void push_twice(struct node **list, int value) {
    push(list, helper(value));
    push(list, helper(value + 1));
}

__attribute__((noinline)) int depth(int levels) {
    if (levels <= 0)
        return 0;
    return 1 + depth(levels - helper(levels) % 2 - 1);
}

__attribute__((noinline)) static int select_one(int which) {
    switch (which) {
    case 0: return helper(which);
    case 1: return depth(7);
    case 2: puts("two"); return 2;
    case 3: return checksum((const unsigned char *)"three", 5);
    default: return -1;
    }
}

__attribute__((noinline, cold)) static void report(const struct node *list) {
    for (; list; list = list->next)
        printf("%d\n", list->value);
}

int main(int argc, char **argv) {
    struct node *list = NULL;
    for (int i = 0; i < argc; i++) {
        push_twice(&list, i);
        push(&list, select_one((int)argv[i][0] % 5));
    }
    report(list);
    return 0;
}
