// Prints the peak memory of the process in KiB. `memory heap` makes two million small allocations. `memory
// threads` starts 1,000 threads that allocate at 5,000 call sites each and do not end. `memory threads
// SECONDS` also allocates at all call sites in the main thread, 50 times a second. `memory faults BYTES`
// allocates 64 MiB in blocks of BYTES, and prints the number of page faults that this causes.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

extern "C" void many_sites();
// A function with 5,000 calls of malloc, each with a call of free.
__asm__(R"(
        .text
        .type   many_sites, @function
many_sites:
        subq    $8, %rsp
        .rept   5000
        movl    $24, %edi
        call    malloc@PLT
        movq    %rax, %rdi
        call    free@PLT
        .endr
        addq    $8, %rsp
        ret
        .size   many_sites, .-many_sites
)");

enum { BLOCKS = 2000000, THREADS = 1000 };
static void *blocks[BLOCKS];
static pthread_barrier_t all_done;

static void *thread(void *unused) {
    many_sites();
    pthread_barrier_wait(&all_done);
    pthread_barrier_wait(&all_done); // waits until the main thread has read the peak
    return unused;
}

static void print_peak() {
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, status))
        if (!strncmp(line, "VmHWM:", 6)) printf("%ld\n", atol(line + 6));
    fclose(status);
}

static long page_faults() {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "faults")) {
        size_t bytes = strtoul(argv[2], nullptr, 10);
        long before = page_faults();
        for (size_t sum = 0; sum < 64 << 20; sum += bytes) memset(malloc(bytes), 1, bytes);
        printf("%ld\n", page_faults() - before);
        return 0;
    }
    if (argc == 2 && !strcmp(argv[1], "heap")) {
        for (int i = 0; i < BLOCKS; i++) {
            blocks[i] = malloc(48);
            memset(blocks[i], 1, 48);
        }
        print_peak();
        return 0;
    }
    if (argc >= 2 && !strcmp(argv[1], "threads")) {
        pthread_barrier_init(&all_done, nullptr, THREADS + 1);
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, 65536);
        pthread_t threads[THREADS];
        for (auto &t : threads)
            if (pthread_create(&t, &attributes, thread, nullptr)) return 3;
        pthread_barrier_wait(&all_done);
        print_peak();
        fflush(stdout);
        for (long turns = argc > 2 ? atol(argv[2]) * 50 : 0; turns > 0; turns--) {
            many_sites();
            usleep(20000);
        }
        pthread_barrier_wait(&all_done);
        for (auto t : threads) pthread_join(t, nullptr);
        return 0;
    }
    return 2;
}
