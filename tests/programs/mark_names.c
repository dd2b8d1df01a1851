// Sets marks with all kinds of names, in threads and in children. Usage: mark_names
// names|many|threads|fork|wait|marks_only N
#include <edleak.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void *keep(void *p) {
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

static void *mark_and_leak(void *unused) {
    for (int i = 0; i < 200000; i++) {
        edleak_mark("shared");
        keep(malloc(32));
    }
    return unused;
}

static void say(const char *text) {
    if (write(1, text, strlen(text)) < 0) _exit(3);
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "names") == 0) {
        static char name[300];
        edleak_mark("");
        edleak_mark("f\xc3\xbcr");
        edleak_mark("f\xc3\xbcr");
        edleak_mark("\xff\xfe");
        edleak_mark("\033[31m");
        edleak_mark(NULL);
        for (int length = 97; length < 102; length++) {
            memset(name, 'x', (size_t)length);
            edleak_mark(name);
        }
    } else if (strcmp(mode, "many") == 0) {
        for (int round = 0; round < 20; round++)
            for (int i = 0; i < 300; i++) {
                char name[32];
                snprintf(name, sizeof name, "name %d", i);
                edleak_mark(name);
                free(keep(malloc(8)));
            }
    } else if (strcmp(mode, "threads") == 0) {
        pthread_t threads[8];
        for (int i = 0; i < 8; i++) pthread_create(&threads[i], NULL, mark_and_leak, NULL);
        for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
    } else if (strcmp(mode, "fork") == 0) {
        for (int i = 0; i < 10; i++) edleak_mark("parent");
        pid_t child = fork();
        if (child == 0) {
            for (int i = 0; i < 30; i++) edleak_mark("child");
            exit(0);
        }
        waitpid(child, NULL, 0);
        for (int i = 0; i < 10; i++) edleak_mark("parent");
    } else if (strcmp(mode, "wait") == 0) {
        for (int i = 0; i < 40; i++) {
            edleak_mark("before");
            keep(malloc(100));
        }
        puts("marked");
        fflush(stdout);
        sleep(100);
    } else if (strcmp(mode, "marks_only") == 0) {
        say("begin marks\n");
        for (long i = atol(argv[2]); i > 0; i--) edleak_mark("busy");
        say("end marks\n");
    } else {
        return 2;
    }
    return 0;
}
