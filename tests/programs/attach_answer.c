// Answers each byte of standard input with the same byte, after an allocation and a free.
//
//   attach_answer [plain|strict|filter|thread-filter|undumpable|main-ends|handler|late]
//
//   strict         allows itself only read, write and exit (seccomp, strict mode)
//   filter         makes the kernel kill the process for openat and mmap (seccomp)
//   thread-filter  sets the filter of `filter` on the thread that answers, but not on the main thread
//   undumpable     forbids other processes of the user to read its memory
//   main-ends      the main thread ends, and another thread answers
//   handler        answers in a signal handler, while another thread runs without a system call
//   late           waits 3 s for a signal, then answers, while another thread waits for its child of vfork
//
// Prints `ready` before the first answer, and `sound` at the end.
//
//#Build: -O1 -pthread -fno-builtin -Wno-unused-result
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

static void answer_all(void) {
    char byte;
    while (read(0, &byte, 1) == 1) {
        if (byte == '\n') continue;
        void *p = malloc(100);
        if (!p) abort();
        memset(p, byte, 100);
        free(p);
        write(1, &byte, 1);
        write(1, "\n", 1);
    }
    write(1, "sound\n", 6);
}

static void kill_for_openat_and_mmap(void) {
    struct sock_filter filter[] = {
        {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr)},
        {BPF_JMP | BPF_JEQ | BPF_K, 1, 0, SYS_openat},
        {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_mmap},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_KILL_PROCESS},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        _exit(3);
}

static void *answer_in_thread(void *is_filtered) {
    // Malloc makes the heap of the thread now, because the thread is about to forbid mmap.
    free(malloc(100));
    if (is_filtered) kill_for_openat_and_mmap();
    write(1, "ready\n", 6);
    answer_all();
    _exit(0);
}

static void answer_in_handler(int signal) {
    (void)signal;
    write(1, "ready\n", 6);
    answer_all();
    _exit(0);
}

static void *run_without_system_calls(void *unused) {
    for (volatile unsigned long n = 0;; n++) {
    }
    return unused;
}

static void on_alarm(int signal) { (void)signal; }

static void *wait_for_child_of_vfork(void *unused) {
    if (vfork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) pause();
    }
    return unused;
}

int main(int argc, char **argv) {
    const char *kind = argc > 1 ? argv[1] : "plain";
    pthread_t thread;
    free(malloc(100));
    if (!strcmp(kind, "filter")) {
        kill_for_openat_and_mmap();
    } else if (!strcmp(kind, "undumpable")) {
        prctl(PR_SET_DUMPABLE, 0);
    } else if (!strcmp(kind, "thread-filter")) {
        pthread_create(&thread, NULL, answer_in_thread, (void *)1);
        pthread_join(thread, NULL);
    } else if (!strcmp(kind, "main-ends")) {
        pthread_create(&thread, NULL, answer_in_thread, NULL);
        pthread_exit(NULL);
    } else if (!strcmp(kind, "handler")) {
        pthread_create(&thread, NULL, run_without_system_calls, NULL);
        signal(SIGUSR1, answer_in_handler);
        raise(SIGUSR1);
    }
    write(1, "ready\n", 6);
    if (!strcmp(kind, "strict")) {
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
        answer_all();
        syscall(SYS_exit, 0);
    } else if (!strcmp(kind, "late")) {
        pthread_create(&thread, NULL, wait_for_child_of_vfork, NULL);
        struct itimerval timer = {{0, 0}, {3, 0}};
        signal(SIGALRM, on_alarm);
        setitimer(ITIMER_REAL, &timer, NULL);
        pause();
    }
    answer_all();
    _exit(0);
}
