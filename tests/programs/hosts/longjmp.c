// Calls longjmp out of deep frames that have just allocated, and out of a comparison function of qsort.
//#Build: -Wno-infinite-recursion
//#Trace: deep allocs=1000 allocated_bytes=100000 frees=1000
#include "check.h"
#include <setjmp.h>

static jmp_buf back;
static void *volatile made;
NOINLINE void deep(int levels) {
    char frame[200];
    keep(frame);
    if (levels) deep(levels - 1);
    else {
        made = keep(malloc(100));
        longjmp(back, 1);
    }
    keep(frame);
}
static int compare(const void *a, const void *b) {
    static int calls;
    if (++calls % 50 == 0) longjmp(back, 2);
    free(keep(malloc(10)));
    return *(const int *)a - *(const int *)b;
}

int main(void) {
    for (volatile int i = 0; i < 1000; i++) {
        if (setjmp(back) == 0) deep(i % 20);
        free(made);
    }
    int numbers[100];
    for (volatile int i = 0; i < 100; i++) {
        for (int n = 0; n < 100; n++) numbers[n] = n * 7919 % 101;
        if (setjmp(back) == 0) qsort(numbers, 100, sizeof *numbers, compare);
    }
    exercise(1000);
    say("ok\n");
}
