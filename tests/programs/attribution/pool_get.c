//#Expect: the leak is blamed on `open_session`, which forgets to give back what it gets
//#Expect: `parse_request` shares the pool and is clean
// Two callers use the program's own allocation function, whose name edleak does not know. Arguments: the
// number of requests, and N: the program forgets to free every Nth request.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile char sink;
static long leaked;

__attribute__((noinline)) void *pool_get(size_t size) {
    char *block = malloc(size);
    memset(block, 1, size);
    sink = block[size / 2];
    return block;
}

__attribute__((noinline)) void pool_put(void *block) {
    sink = *(char *)block;
    free(block);
}

__attribute__((noinline)) void open_session(int forget) {
    char *session = pool_get(300);
    sink = session[1];
    if (forget) leaked++;
    else pool_put(session);
}

__attribute__((noinline)) void parse_request(int i) {
    char *words[4];
    for (int k = 0; k < 4; k++) words[k] = pool_get(40 + 8 * k + i % 5);
    for (int k = 0; k < 4; k++) pool_put(words[k]);
    sink = 0;
}

__attribute__((noinline)) void handle_request(int i, int every) {
    parse_request(i);
    open_session(i % every == 0);
    sink = 1;
}

int main(int argc, char **argv) {
    int requests = argc > 1 ? atoi(argv[1]) : 800, every = argc > 2 ? atoi(argv[2]) : 2;
    for (int i = 0; i < requests; i++) {
        handle_request(i, every);
        usleep(5000);
    }
    printf("ledger: %ld sessions leaked\n", leaked);
    return 0;
}
