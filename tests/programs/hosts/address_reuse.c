// One thread frees a block, and another thread at once gets a new block at the same address. The free must
// remove only the entry of the first block from edleak's table.
//#Trace: produced live_bytes=0
//#Trace: moved live_bytes=0
#include "check.h"
#include <pthread.h>
#include <stdatomic.h>

static void *_Atomic mailbox[64];
NOINLINE void *produced(void) { return keep(malloc(64)); }
NOINLINE void *moved(void *p, size_t n) { return keep(realloc(p, n)); }

static void *thread(void *seed) {
    uint64_t state = (uint64_t)(uintptr_t)seed * 0x9e3779b97f4a7c15u;
    for (int i = 0; i < 200000; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        void *mine = state & 1 ? produced() : moved(produced(), 16 + state % 500);
        CHECK(mine);
        free(atomic_exchange(&mailbox[state % 64], mine));
    }
    return NULL;
}
int main(void) {
    pthread_t threads[8];
    for (uintptr_t i = 0; i < 8; i++) pthread_create(&threads[i], NULL, thread, (void *)(i + 1));
    for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 64; i++) free(mailbox[i]);
    say("ok\n");
}
