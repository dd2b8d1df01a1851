// Tests the wrappers that C programs use (functions that allocate for their caller). Each function
// `case_NAME` calls one wrapper, and edleak must name `case_NAME` as the site of the allocation.
#define _GNU_SOURCE
#include <dirent.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void arm(void);
static void *volatile sink;

// Typical wrappers of a program: each wrapper calls the next wrapper.
__attribute__((noinline)) void *xmalloc(size_t size) {
    void *memory = malloc(size);
    if (!memory) abort();
    return memory;
}

__attribute__((noinline)) char *xstrdup(const char *text) {
    char *copy = xmalloc(strlen(text) + 1);
    return strcpy(copy, text);
}

// edleak treats this function as a wrapper only if the user names it with `--wrapper`.
__attribute__((noinline)) void *pool_take(size_t size) {
    void *memory = xmalloc(size + 16);
    return memset(memory, 0, size);
}

#define CASE(name, ...) \
    __attribute__((noinline)) void case_##name(void) { \
        arm(); \
        __VA_ARGS__; \
        sink = NULL; /* or the call above would be a jump, and this frame gone */ \
    }

CASE(malloc, sink = malloc(3))
CASE(xmalloc, sink = xmalloc(3))
CASE(xstrdup, sink = xstrdup("text"))
CASE(pool_take, sink = pool_take(30))
CASE(strdup, sink = strdup("text"))
CASE(strndup, sink = strndup("text", 2))
CASE(asprintf, char *text; if (asprintf(&text, "%d", 3)) sink = text)
CASE(getline, char *line = NULL; size_t room = 0; if (getline(&line, &room, stdin)) sink = line)
CASE(fopen, sink = fopen("/dev/null", "r"))
CASE(fdopen, sink = fdopen(0, "r"))
CASE(open_memstream, char *text; size_t room; sink = open_memstream(&text, &room))
CASE(getcwd, sink = getcwd(NULL, 0))
CASE(realpath, sink = realpath(".", NULL))
CASE(opendir, sink = opendir("."))
CASE(scandir, struct dirent **names; if (scandir(".", &names, NULL, alphasort)) sink = names)
CASE(regcomp, static regex_t regex; if (regcomp(&regex, "a.*b", 0)) sink = &regex)
CASE(setenv, setenv("A_NEW_NAME", "value", 1))

int main(int count, char **words) {
    if (count < 2) return 2;
#define RUN(name) if (!strcmp(words[1], #name)) case_##name();
    RUN(malloc) RUN(xmalloc) RUN(xstrdup) RUN(pool_take) RUN(strdup) RUN(strndup) RUN(asprintf) RUN(getline)
    RUN(fopen) RUN(fdopen) RUN(open_memstream) RUN(getcwd) RUN(realpath) RUN(opendir) RUN(scandir)
    RUN(regcomp) RUN(setenv)
    return 1;
}
