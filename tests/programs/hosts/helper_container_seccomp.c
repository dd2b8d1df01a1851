// Runs a program with a seccomp filter that refuses the same system calls as Docker's default profile.
//
// usage: helper_container_seccomp [--old|--no-ptrace] PROGRAM [ARGUMENT]...
//
// --old also refuses, with EPERM, the system calls that a profile from before 2020 does not know. --no-ptrace
// also refuses ptrace, but allows the program to read and write the memory of a process.
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const int refused[] = {
    SYS_acct, SYS_add_key, SYS_bpf, SYS_clock_adjtime, SYS_clock_settime, SYS_create_module,
    SYS_delete_module, SYS_finit_module, SYS_get_kernel_syms, SYS_get_mempolicy, SYS_init_module, SYS_ioperm,
    SYS_iopl, SYS_kcmp, SYS_kexec_file_load, SYS_kexec_load, SYS_keyctl, SYS_lookup_dcookie, SYS_mbind,
    SYS_mount, SYS_move_pages, SYS_nfsservctl, SYS_open_by_handle_at, SYS_perf_event_open, SYS_pivot_root,
    SYS_query_module, SYS_quotactl, SYS_reboot, SYS_request_key, SYS_set_mempolicy, SYS_setns,
    SYS_settimeofday, SYS_swapoff, SYS_swapon, SYS_sysfs, SYS_umount2, SYS_unshare, SYS_uselib,
    SYS_userfaultfd, SYS_ustat, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register,
};

// The list has the system calls that a profile from before 2020 does not know. It also has process_vm_* and
// ptrace, which that profile refuses if the kernel is older than Linux 4.8.
static const int unknown_to_old[] = {
    SYS_pidfd_open, SYS_pidfd_send_signal, SYS_clone3, SYS_close_range, SYS_openat2, SYS_faccessat2,
    SYS_process_vm_readv, SYS_process_vm_writev, SYS_ptrace,
};

static const int ptrace_alone[] = {SYS_ptrace};

static struct sock_filter filter[512];
static unsigned short length;

static void add(unsigned short code, unsigned char jt, unsigned char jf, unsigned k) {
    filter[length++] = (struct sock_filter){code, jt, jf, k};
}

static void refuse(const int *calls, size_t count) {
    for (size_t i = 0; i < count; i++) {
        add(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, (unsigned)calls[i]);
        // glibc uses an older call instead of clone3 only if the kernel reports ENOSYS.
        add(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | (calls[i] == SYS_clone3 ? ENOSYS : EPERM));
    }
}

int main(int count, char **words) {
    int is_old = count > 1 && strcmp(words[1], "--old") == 0;
    int is_without_ptrace = count > 1 && strcmp(words[1], "--no-ptrace") == 0;
    char **program = words + 1 + (is_old || is_without_ptrace);
    if (!*program) {
        fputs("helper_container_seccomp: no program\n", stderr);
        return 2;
    }
    add(BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, arch));
    add(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, AUDIT_ARCH_X86_64);
    add(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_KILL_PROCESS);
    add(BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr));
    refuse(refused, sizeof refused / sizeof *refused);
    if (is_old) refuse(unknown_to_old, sizeof unknown_to_old / sizeof *unknown_to_old);
    if (is_without_ptrace) refuse(ptrace_alone, 1);
    add(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
    struct sock_fprog all = {length, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all)) {
        perror("helper_container_seccomp");
        return 2;
    }
    execvp(*program, program);
    perror(*program);
    return 127;
}
