// Stops the process that records it, and makes more pool events than the ring of events holds. So exactly the
// events that do not fit into the ring are lost. Then lets the recording process run on.
//
//   pool_flood OBJECTS
#include <edleak.h>

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char pool;

__attribute__((noinline)) static void hand_out(char *object) {
    edleak_pool_alloc(&pool, object, 16);
    __asm__ volatile("" : : : "memory");
}

__attribute__((noinline)) static void site_flood(long objects) {
    for (long i = 0; i < objects; i++) hand_out((char *)0x10000000 + 16 * i);
    __asm__ volatile("" : : : "memory");
}

// Whether all threads of a process are stopped.
static int is_stopped(pid_t pid) {
    char path[300], text[512];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    if (!tasks) exit(2);
    int stopped = 1;
    for (struct dirent *task; (task = readdir(tasks));) {
        if (task->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/%d/task/%s/stat", pid, task->d_name);
        FILE *file = fopen(path, "r");
        size_t length = file ? fread(text, 1, sizeof text - 1, file) : 0;
        if (file) fclose(file);
        text[length] = 0;
        char *end = strrchr(text, ')');
        if (!end || end[2] != 'T') stopped = 0;
    }
    closedir(tasks);
    return stopped;
}

int main(int argc, char **argv) {
    long objects = argc > 1 ? atol(argv[1]) : 1000;
    pid_t recorder = getppid();
    struct timespec pause = {0, 1000 * 1000};
    kill(recorder, SIGSTOP);
    while (!is_stopped(recorder)) nanosleep(&pause, NULL);
    edleak_pool_name(&pool, "flood");
    site_flood(objects);
    edleak_pool_reset(&pool);
    kill(recorder, SIGCONT);
}
