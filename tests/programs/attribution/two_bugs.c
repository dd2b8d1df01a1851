//#Expect: two findings: `read_config` and `open_log` leak in step, but share nothing but `main`
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile char sink;

__attribute__((noinline)) void read_config(int i) {
    char *text = malloc(120);
    memset(text, i, 120);
    sink = text[i % 120];
}

__attribute__((noinline)) void open_log(int i) {
    char *buffer = malloc(700);
    memset(buffer, i, 700);
    sink = buffer[i % 700];
}

int main(int argc, char **argv) {
    int times = argc > 1 ? atoi(argv[1]) : 400;
    for (int i = 0; i < times; i++) {
        read_config(i);
        open_log(i);
        usleep(8000);
    }
    printf("ledger: %d\n", times);
    return 0;
}
