// `scribble MODE SECONDS` writes random data into the shared memory of its own recording, for SECONDS.
// Mode `all` writes into every shared region, and into the first pages most often. Mode `header` writes
// only into the header of its session, so that counts and states change all the time. Mode `shrink`
// truncates the shared memory while the collector uses it. Mode `claim` claims every session again and
// again.
//
// tests/tests/hostile.rs records this program.
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct memory { char name[64]; int fd; size_t bytes; volatile uint64_t *words; };
static struct memory memories[64];
static int found;

static uint64_t dice(void) {
    static uint64_t state = 0x9e3779b97f4a7c15;
    state ^= state << 13; state ^= state >> 7; state ^= state << 17;
    return state;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

// Opens every memory file of the collector: EDLEAK_SESSION has the form /proc/COLLECTOR/fd/N.
static void open_all(const char *page) {
    char dir[64], path[400], link[300];
    snprintf(dir, sizeof dir, "%.*s", (int)(strrchr(page, '/') - page), page);
    DIR *all = opendir(dir);
    for (struct dirent *entry; all && (entry = readdir(all)) && found < 64;) {
        snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        ssize_t length = readlink(path, link, sizeof link - 1);
        if (length < 0 || !memmem(link, length, "memfd:edleak", 12)) continue;
        struct memory *m = &memories[found];
        snprintf(m->name, sizeof m->name, "%.*s", (int)length, link);
        struct stat status;
        if ((m->fd = open(path, O_RDWR)) < 0 || fstat(m->fd, &status)) continue;
        m->bytes = status.st_size;
        m->words = mmap(NULL, m->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m->fd, 0);
        found += m->words != MAP_FAILED;
    }
    if (all) closedir(all);
}

static uint64_t rubbish(void) {
    static const uint64_t edges[] = {0, 1, 2, 0x7fffffff, 0x80000000, 0xffffffff, 1ull << 40, 1ull << 63,
                                     ~0ull};
    return dice() % 2 ? dice() : edges[dice() % (sizeof edges / sizeof *edges)];
}

int main(int argc, char **argv) {
    const char *page = getenv("EDLEAK_SESSION"), *mode = argv[1];
    if (argc < 3 || !page) return 0;
    double end = now() + atof(argv[2]);
    void *kept = malloc(100);
    while (now() < end) {
        found = 0;
        open_all(page);
        double until = now() + 0.2;
        for (uint64_t turn = 0; now() < until && found; turn++) {
            for (int i = 0; i < found; i++) {
                struct memory *m = &memories[i];
                int is_control = strstr(m->name, "control") != NULL;
                size_t words = m->bytes / 8;
                if (!strcmp(mode, "all"))
                    for (int n = 0; n < 64; n++) m->words[dice() % (dice() % 4 ? words : 512)] = rubbish();
                else if (!strcmp(mode, "header") && !is_control)
                    for (int n = 0; n < 64; n++) m->words[dice() % 64] = rubbish();
                else if (!strcmp(mode, "shrink") && ftruncate(m->fd, dice() % 2 ? 0 : m->bytes) == 0)
                    m->bytes = 0, words = 0;
                else if (!strcmp(mode, "claim") && is_control)
                    for (int n = 8; n < 512; n++)
                        if ((uint32_t)m->words[n] == 1) *(volatile uint32_t *)&m->words[n] = 2;
            }
            free(realloc(kept, 100 + turn % 1000));
            kept = malloc(100);
        }
        for (int i = 0; i < found; i++) {
            munmap((void *)memories[i].words, memories[i].bytes ? memories[i].bytes : 4096);
            close(memories[i].fd);
        }
    }
    puts("done");
    return 0;
}
