// main returns while eight threads still allocate.
#include "check.h"
#include <pthread.h>

static void *thread(void *unused) {
    for (;;) exercise(100);
    return unused;
}
int main(void) {
    for (int i = 0; i < 8; i++) {
        pthread_t t;
        CHECK(pthread_create(&t, NULL, thread, NULL) == 0);
        if (i % 2) pthread_detach(t);
    }
    exercise(10000);
    say("ok\n");
    return 4;
}
