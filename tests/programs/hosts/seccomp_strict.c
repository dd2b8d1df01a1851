// Uses the strictest seccomp mode, which allows only read, write, exit and sigreturn. So malloc can use only
// memory that it already has.
#include "check.h"
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

int main(void) {
    void *reserve = keep(malloc(100000)); // below the mmap threshold, so a free keeps it in the heap
    void *guard = keep(malloc(10));
    free(reserve);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
    for (int i = 0; i < 1000; i++) free(keep(malloc((size_t)(i * 7 % 5000))));
    free(guard);
    say("ok\n");
    syscall(SYS_exit, 3);
}
