// Waits in a system call with known values in errno, the red zone, the vector registers and all registers
// that the call must preserve. After the call, checks that the values are unchanged.
//
//   attach_state read|poll|futex
//
// Prints `waiting`, and after the call either `same` or the differences. A byte on standard input ends read
// and poll; poll also ends after 600 s. SIGUSR1 ends futex: a second thread handles the signal.
//
//#Build: -O1 -pthread -Wno-unused-result
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

uint64_t before[11], after[11];
uint8_t vectors_before[16 * 32], vectors_after[16 * 32];
static int word = 0;
// The vector unit rounds numbers up if its control register has this value.
enum { ROUND_UP = 0x5f80 };

// Makes the system call in a function with unwind information, as a libc does.
extern long call(long number, long a, long b, long c, long d);
__asm__(".text\n.globl call\n.type call, @function\ncall:\n.cfi_startproc\n"
        "push %rbx\n.cfi_adjust_cfa_offset 8\n.cfi_offset %rbx, -16\n"
        "push %rbp\n.cfi_adjust_cfa_offset 8\n.cfi_offset %rbp, -24\n"
        "push %r12\n.cfi_adjust_cfa_offset 8\npush %r13\n.cfi_adjust_cfa_offset 8\n"
        "push %r14\n.cfi_adjust_cfa_offset 8\npush %r15\n.cfi_adjust_cfa_offset 8\n"
        "mov %rdi, %rax\nmov %rsi, %rdi\nmov %rdx, %rsi\nmov %rcx, %rdx\nmov %r8, %r10\n"
        "lea vectors_before(%rip), %r11\n"
        "vmovdqu (%r11), %ymm0\nvmovdqu 32(%r11), %ymm1\nvmovdqu 64(%r11), %ymm2\nvmovdqu 96(%r11), %ymm3\n"
        "vmovdqu 128(%r11), %ymm4\nvmovdqu 160(%r11), %ymm5\n"
        "vmovdqu 192(%r11), %ymm6\nvmovdqu 224(%r11), %ymm7\n"
        "vmovdqu 256(%r11), %ymm8\nvmovdqu 288(%r11), %ymm9\n"
        "vmovdqu 320(%r11), %ymm10\nvmovdqu 352(%r11), %ymm11\n"
        "vmovdqu 384(%r11), %ymm12\nvmovdqu 416(%r11), %ymm13\n"
        "vmovdqu 448(%r11), %ymm14\nvmovdqu 480(%r11), %ymm15\n"
        "lea before(%rip), %r11\n"
        "mov 0(%r11), %rbx\nmov 8(%r11), %rbp\nmov 16(%r11), %r12\nmov 24(%r11), %r13\nmov 32(%r11), %r14\n"
        "mov 40(%r11), %r15\nmov 48(%r11), %r8\nmov 56(%r11), %r9\n"
        "mov %rbx, -8(%rsp)\nmov %rbp, -64(%rsp)\nmov %r12, -120(%rsp)\n"
        "syscall\n"
        "lea after(%rip), %r11\n"
        "mov %rbx, 0(%r11)\nmov %rbp, 8(%r11)\nmov %r12, 16(%r11)\nmov %r13, 24(%r11)\nmov %r14, 32(%r11)\n"
        "mov %r15, 40(%r11)\nmov %r8, 48(%r11)\nmov %r9, 56(%r11)\n"
        "mov -8(%rsp), %rcx\nmov %rcx, 64(%r11)\nmov -64(%rsp), %rcx\nmov %rcx, 72(%r11)\n"
        "mov -120(%rsp), %rcx\nmov %rcx, 80(%r11)\n"
        "lea vectors_after(%rip), %r11\n"
        "vmovdqu %ymm0, (%r11)\nvmovdqu %ymm1, 32(%r11)\nvmovdqu %ymm2, 64(%r11)\nvmovdqu %ymm3, 96(%r11)\n"
        "vmovdqu %ymm4, 128(%r11)\nvmovdqu %ymm5, 160(%r11)\n"
        "vmovdqu %ymm6, 192(%r11)\nvmovdqu %ymm7, 224(%r11)\n"
        "vmovdqu %ymm8, 256(%r11)\nvmovdqu %ymm9, 288(%r11)\n"
        "vmovdqu %ymm10, 320(%r11)\nvmovdqu %ymm11, 352(%r11)\n"
        "vmovdqu %ymm12, 384(%r11)\nvmovdqu %ymm13, 416(%r11)\n"
        "vmovdqu %ymm14, 448(%r11)\nvmovdqu %ymm15, 480(%r11)\n"
        "vzeroupper\n"
        "pop %r15\n.cfi_adjust_cfa_offset -8\npop %r14\n.cfi_adjust_cfa_offset -8\n"
        "pop %r13\n.cfi_adjust_cfa_offset -8\npop %r12\n.cfi_adjust_cfa_offset -8\n"
        "pop %rbp\n.cfi_adjust_cfa_offset -8\npop %rbx\n.cfi_adjust_cfa_offset -8\n"
        "ret\n.cfi_endproc\n.size call, .-call\n");

// Waits for signals. edleak-record never chooses a thread in pause() to load the library.
static void *wait_for_signals(void *unused) {
    for (;;) pause();
    return unused;
}

static void on_signal(int signal) {
    (void)signal;
    __atomic_store_n(&word, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
}

int main(int argc, char **argv) {
    const char *kind = argc > 1 ? argv[1] : "read";
    for (int i = 0; i < 8; i++) before[i] = 0x1111111111111111ull * (i + 1);
    for (int i = 8; i < 11; i++) before[i] = before[i - 8];
    for (unsigned i = 0; i < sizeof vectors_before; i++) vectors_before[i] = (uint8_t)(i * 7 + 3);
    __builtin_ia32_ldmxcsr(ROUND_UP);
    errno = 77;
    char byte = 0;
    struct pollfd input = {0, POLLIN, 0};
    if (write(1, "waiting\n", 8) != 8) return 2;
    long result = 0, expected = 1;
    if (!strcmp(kind, "read")) {
        result = call(SYS_read, 0, (long)&byte, 1, 0);
    } else if (!strcmp(kind, "poll")) {
        result = call(SYS_poll, (long)&input, 1, 600000, 0);
    } else {
        pthread_t thread;
        struct sigaction action = {.sa_handler = on_signal};
        sigset_t mask;
        pthread_create(&thread, NULL, wait_for_signals, NULL);
        sigaction(SIGUSR1, &action, NULL);
        sigemptyset(&mask), sigaddset(&mask, SIGUSR1);
        pthread_sigmask(SIG_BLOCK, &mask, NULL);
        errno = 77;
        result = call(SYS_futex, (long)&word, FUTEX_WAIT_PRIVATE, 0, 0);
        expected = 0;
    }
    int error = errno;
    if (result != expected) printf("result %ld\n", result);
    else if (error != 77) printf("errno %d\n", error);
    else if ((__builtin_ia32_stmxcsr() & ROUND_UP) != ROUND_UP) printf("rounding\n");
    else if (memcmp(before, after, 11 * 8)) {
        for (int i = 0; i < 11; i++) if (before[i] != after[i]) printf("register %d: %lx\n", i, after[i]);
    } else if (memcmp(vectors_before, vectors_after, sizeof vectors_before)) printf("vectors\n");
    else printf("same\n");
    fflush(stdout);
    return 0;
}
