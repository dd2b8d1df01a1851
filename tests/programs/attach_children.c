// Forks children that allocate on command. Each child lives until its parent ends.
//
//   attach_children
//
// Reads commands, and answers each command with its result and then with the line `done`:
//   fork N        forks a child that allocates N blocks; prints its process ID
//   nested N      forks a child that forks a child; each allocates N blocks; prints both process IDs
//   more INDEX N  the child with this index (the first child has 0) allocates N more blocks
//   self N        this process allocates N blocks
//
// A process frees every second block at once. A block has 100 bytes. So N blocks are N allocations with 100 N
// bytes, and N / 2 frees with 100 (N / 2) bytes.
//
//#Build: -O1 -fno-builtin -Wno-unused-result
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>

enum { MOST_CHILDREN = 32, BYTES = 100 };

__attribute__((noinline, noclone)) void *site_child(void) {
    void *p = malloc(BYTES);
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}
__attribute__((noinline, noclone)) void *site_self(void) {
    void *p = malloc(BYTES);
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

static void allocate(void *(*site)(void), int blocks) {
    for (int i = 0; i < blocks; i++) {
        void *p = site();
        if (!p) abort();
        memset(p, 7, BYTES);
        if (i % 2) free(p);
    }
}

// Pipes: one to each child, for commands, and one from all children, for answers.
static int to_child[MOST_CHILDREN], from_children[2], children = 0;

static void answer(void) {
    int pid = getpid();
    write(from_children[1], &pid, sizeof pid);
}

static void wait_for_answer(void) {
    int pid;
    if (read(from_children[0], &pid, sizeof pid) != sizeof pid) _exit(4);
}

// Runs in a child after its fork, until the child ends.
static void live(int orders, int blocks) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    allocate(site_child, blocks);
    answer();
    while (read(orders, &blocks, sizeof blocks) == sizeof blocks) {
        allocate(site_child, blocks);
        answer();
    }
    _exit(0);
}

int main(void) {
    static char out[1 << 12], in[1 << 12];
    setvbuf(stdout, out, _IOFBF, sizeof out);
    setvbuf(stdin, in, _IOFBF, sizeof in);
    if (pipe(from_children)) return 2;
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        int first = 0, second = 0, is_nested = !strncmp(line, "nested ", 7);
        if (sscanf(line, "more %d %d", &first, &second) == 2) {
            write(to_child[first], &second, sizeof second);
            wait_for_answer();
        } else if (sscanf(line, "self %d", &first) == 1) {
            allocate(site_self, first);
        } else if (is_nested || !strncmp(line, "fork ", 5)) {
            int blocks = atoi(strchr(line, ' ')), orders[2], numbers[2];
            if (children >= MOST_CHILDREN || pipe(orders) || pipe(numbers)) return 2;
            int child = fork();
            if (child == 0) {
                int grandchild = is_nested ? fork() : 1;
                if (grandchild == 0) {
                    // The grandchild reads its commands from the pipe `silent`, into which no process writes.
                    int silent[2];
                    if (pipe(silent)) _exit(2);
                    live(silent[0], blocks);
                }
                write(numbers[1], &grandchild, sizeof grandchild);
                live(orders[0], blocks);
            }
            int grandchild;
            if (read(numbers[0], &grandchild, sizeof grandchild) != sizeof grandchild) return 2;
            to_child[children++] = orders[1];
            printf("%d\n", child);
            if (is_nested) printf("%d\n", grandchild);
            for (int i = 0; i < 1 + is_nested; i++) wait_for_answer();
        } else {
            return 2;
        }
        printf("done\n");
        fflush(stdout);
    }
    _exit(0);
}
