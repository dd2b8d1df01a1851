// Checks that the process sees itself as without edleak: threads, descriptors, signals, limits, children.
#include "check.h"
#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

static int entries(const char *path) {
    DIR *dir = opendir(path);
    CHECK(dir);
    int n = 0;
    while (readdir(dir)) n++;
    closedir(dir);
    return n - 2;
}

int main(int argc, char **argv) {
    exercise(1000);
    CHECK(entries("/proc/self/task") == 1);
    CHECK(entries("/proc/self/fd") == 4); // standard input, output and error, and this directory
    printf("arguments %d, name %s\n", argc, strrchr(argv[0], '/') + 1);
    FILE *status = fopen("/proc/self/status", "r");
    char line[512];
    while (fgets(line, sizeof line, status))
        if (!strncmp(line, "Sig", 3) || !strncmp(line, "ShdPnd", 6) || !strncmp(line, "NoNewPrivs", 10) ||
            !strncmp(line, "Seccomp", 7) || !strncmp(line, "TracerPid", 9) || !strncmp(line, "Cap", 3) ||
            !strncmp(line, "Umask", 5) || !strncmp(line, "Name", 4))
            if (strncmp(line, "SigQ", 4)) fputs(line, stdout);
    fclose(status);
    for (int resource = 0; resource < RLIM_NLIMITS; resource++) {
        struct rlimit limit;
        CHECK(getrlimit(resource, &limit) == 0);
        printf("limit %d: %lu %lu\n", resource, (unsigned long)limit.rlim_cur, (unsigned long)limit.rlim_max);
    }
    struct sched_param parameters;
    sched_getparam(0, &parameters);
    printf("policy %d %d, nice %d\n", sched_getscheduler(0), parameters.sched_priority,
           getpriority(PRIO_PROCESS, 0));
    printf("dumpable %d, child subreaper ", prctl(PR_GET_DUMPABLE));
    int subreaper = -1;
    prctl(PR_GET_CHILD_SUBREAPER, &subreaper);
    printf("%d\n", subreaper);
    int deathsig = -1;
    prctl(PR_GET_PDEATHSIG, &deathsig);
    printf("death signal %d, timer slack %d\n", deathsig, prctl(PR_GET_TIMERSLACK));
    char name[32];
    prctl(PR_GET_NAME, name);
    printf("thread name %s\n", name);
    errno = 0;
    CHECK(wait4(-1, NULL, 1, NULL) == -1 && errno == ECHILD); // this program has started no child
    printf("ok\n");
}
