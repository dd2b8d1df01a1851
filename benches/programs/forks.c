/* `forks N`: forks N children, one after another. Each child allocates once and ends. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    for (long left = argc > 1 ? atol(argv[1]) : 0; left > 0; left--) {
        pid_t child = fork();
        if (child < 0) return 1;
        if (child == 0) {
            void *volatile allocation = malloc(100);
            free(allocation);
            _exit(0);
        }
        waitpid(child, NULL, 0);
    }
    return 0;
}
