// If the limit of the address space is reached, malloc must fail with ENOMEM. After frees, malloc must work.
//#Run: 208
//#Run: 512
#include "check.h"
#include <sys/resource.h>

int main(int argc, char **argv) {
    CHECK(argc == 2);
    rlim_t bytes = (rlim_t)atol(argv[1]) << 20;
    struct rlimit limit = {bytes, bytes};
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    static void *held[4096];
    int n = 0;
    errno = 0;
    while (n < 4096 && (held[n] = keep(malloc(1 << 20)))) memset(held[n++], 1, 100);
    CHECK(n < 4096 && errno == ENOMEM);
    CHECK(n > (int)(bytes >> 20) / 4); // edleak itself uses only little of the address space
    CHECK(keep(calloc(1 << 10, 1 << 11)) == NULL);
    CHECK(keep(realloc(held[0], 8 << 20)) == NULL && ((char *)held[0])[99] == 1);
    while (n) free(held[--n]);
    exercise(5000);
    say("ok\n");
}
