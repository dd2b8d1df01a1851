// mmap and related functions must behave as without edleak. The program checks results, errno of calls that
// fail, errno after calls that succeed, the fifth argument of mremap, MAP_FIXED, a limit of the address
// space, and lookups of mmap by name.
//#Trace: in_main allocs=102 frees=102
#include "check.h"
#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/wait.h>

#define PAGE 4096ul
NOINLINE static char *in_main(size_t length) {
    return keep(mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

int main(void) {
    for (int i = 0; i < 100; i++) {
        errno = 77;
        char *p = in_main(8 * PAGE - 100);
        CHECK(p != MAP_FAILED && errno == 77);
        memset(p, i, 8 * PAGE);
        CHECK(madvise(p + PAGE, PAGE, i % 2 ? MADV_DONTNEED : MADV_NORMAL) == 0 && errno == 77);
        CHECK(p[PAGE] == (i % 2 ? 0 : i) && p[0] == i);
        CHECK(munmap(p + 2 * PAGE, PAGE) == 0 && munmap(p, 8 * PAGE) == 0 && errno == 77);
    }
    errno = 0;
    CHECK(mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EINVAL);
    errno = 0;
    CHECK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, 999, 0) == MAP_FAILED && errno == EBADF);
    errno = 0;
    CHECK(munmap((void *)1, PAGE) == -1 && errno == EINVAL);
    errno = 0;
    CHECK(mremap((void *)PAGE, PAGE, PAGE, 0) == MAP_FAILED && errno == EFAULT);
    errno = 0;
    CHECK(shmat(-1, NULL, 0) == (void *)-1 && errno == EINVAL);
    errno = 0;
    CHECK(shmdt((void *)PAGE) == -1 && errno == EINVAL);
    errno = 0;
    CHECK(madvise((void *)PAGE, PAGE, MADV_DONTNEED) == -1 && errno == ENOMEM);
    errno = 0;
    CHECK(madvise((void *)PAGE, PAGE, 12345) == -1 && errno == EINVAL);

    char *p = in_main(4 * PAGE), *room = in_main(16 * PAGE);
    strcpy(p, "moved");
    CHECK(mremap(p, 4 * PAGE, 6 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room + 4 * PAGE) == room + 4 * PAGE);
    CHECK(strcmp(room + 4 * PAGE, "moved") == 0);
    CHECK(mmap(room, 2 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == room &&
          room[0] == 0);
    CHECK(munmap(room, 16 * PAGE) == 0);

    void *(*next)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, "mmap");
    void *(*any)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_DEFAULT, "mmap");
    CHECK(next && any);
    char *q = next(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(q != MAP_FAILED && munmap(q, PAGE) == 0);
    q = any(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(q != MAP_FAILED && munmap(q, PAGE) == 0);

    pid_t child = vfork();
    if (child == 0) {
        char *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        _exit(shared == MAP_FAILED || madvise(shared, PAGE, MADV_FREE) != 0 || munmap(shared, PAGE) != 0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    child = fork();
    if (child == 0) {
        for (int i = 0; i < 50; i++) {
            char *own = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            CHECK(own != MAP_FAILED && madvise(own, PAGE, MADV_DONTNEED) == 0 && munmap(own, PAGE) == 0);
        }
        _exit(5);
    }
    CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 5);

    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = 1ul << 20;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    errno = 0;
    CHECK(mmap(NULL, 64ul << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED &&
          errno == ENOMEM);
    say("ok\n");
}
