// Forks while threads allocate. Parent and child continue to allocate, and each child frees the allocations
// that it inherited.
//#Trace: in_parent allocs=20 allocated_bytes=20000 frees=20
#include "check.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

static atomic_int stop;
static void *thread(void *unused) {
    while (!stop) exercise(200);
    return unused;
}
NOINLINE void *in_parent(void) { return keep(malloc(1000)); }

int main(void) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, thread, NULL) == 0);
    for (int i = 0; i < 20; i++) {
        void *inherited = in_parent();
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            exercise(500);
            free(inherited);
            for (int n = 0; n < 20; n++) CHECK(in_parent());
            _exit(i);
        }
        exercise(500);
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == i);
        free(inherited);
    }
    stop = 1;
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    say("ok\n");
}
