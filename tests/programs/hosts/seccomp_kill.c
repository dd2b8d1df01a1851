// A sandbox that allows only read, write, exit, futex, brk, mmap, munmap, madvise and clocks. The kernel
// kills the process at any other call.
//#Trace: sandboxed allocs=20000 allocated_bytes=40000000 frees=20000
#include "check.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

NOINLINE void *sandboxed(void) { return keep(malloc(2000)); }

int main(void) {
    static const int allowed[] = {SYS_read, SYS_write, SYS_exit, SYS_exit_group, SYS_futex, SYS_brk, SYS_mmap,
                                  SYS_munmap, SYS_mremap, SYS_madvise, SYS_clock_gettime, SYS_clock_nanosleep,
                                  SYS_rt_sigreturn};
    enum { N = sizeof allowed / sizeof *allowed };
    struct sock_filter filter[2 * N + 2];
    int n = 0;
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < N; i++) {
        filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], 0, 1);
        filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    struct sock_fprog program = {(unsigned short)n, filter};
    exercise(100);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);

    static void *held[20000];
    for (int i = 0; i < 20000; i++) held[i] = sandboxed(); // 40 MB, which needs new address space
    for (int i = 0; i < 20000; i++) free(held[i]);
    for (int i = 0; i < 20; i++) free(keep(malloc((size_t)20 << 20))); // each block gets a new mapping
    void *calloced = keep(calloc(1000, 1000));
    void *grown = keep(realloc(calloced, 5000000));
    free(grown);
    char *mapped = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(mapped != MAP_FAILED && madvise(mapped, 8192, MADV_DONTNEED) == 0);
    // The first call of aligned_alloc runs code that has not run before, in the program and in edleak.
    free(keep(aligned_alloc(64, 640)));
    say("ok\n");
    _exit(7);
}
