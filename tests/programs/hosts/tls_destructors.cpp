// While a thread ends, destructors of thread-local objects and of pthread keys allocate in several rounds.
//#Trace: in_thread_local allocs=50 allocated_bytes=5000 frees=50
//#Trace: in_key allocs=200 allocated_bytes=40000 frees=200
#include "check.h"
#include <atomic>
#include <pthread.h>
#include <thread>

extern "C" {
NOINLINE void *in_thread_local() { return keep(malloc(100)); }
NOINLINE void *in_key() { return keep(malloc(200)); }
}

struct dying {
    void *p = nullptr;
    ~dying() {
        free(p);
        free(in_thread_local());
    }
};
static thread_local dying object;
static pthread_key_t key;
static std::atomic<int> rounds;

static void key_destructor(void *value) {
    free(value);
    // A destructor that sets its key again is called again, at most 4 times (PTHREAD_DESTRUCTOR_ITERATIONS).
    static thread_local int round;
    rounds++;
    if (++round < 4) pthread_setspecific(key, in_key());
}

int main() {
    CHECK(pthread_key_create(&key, key_destructor) == 0);
    for (int i = 0; i < 50; i++)
        std::thread([] {
            object.p = malloc(50);
            pthread_setspecific(key, in_key());
        }).join();
    CHECK(rounds == 200);
    say("ok\n");
}
