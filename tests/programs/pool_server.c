// A server with an arena for each request and an arena for the connection, in a shared library.
//
//   pool_server MODE [--seconds N]
//
//   leak    each request leaves an object in the arena of the connection
//   cache   the connection has a table of 200 objects, which is full after a third of the run
//   calm    allocates only in the arenas of the requests
//   fork    keeps four objects, and a forked child frees one of its copies and keeps two more
//
//#Build: -L$OUT -l:libpool_arena.so -Wl,-rpath,$OUT
#include "pace.h"
#include <sys/wait.h>
#include <unistd.h>

struct arena;
struct arena *arena_new(const char *name);
void *arena_alloc(struct arena *arena, size_t size);
void arena_free(struct arena *arena, void *object);
void arena_reset(struct arena *arena);
void arena_delete(struct arena *arena);

NOINLINE void *remember_request(struct arena *connection) { return keep(arena_alloc(connection, 300)); }
NOINLINE void *load_entry(struct arena *connection) { return keep(arena_alloc(connection, 200)); }
NOINLINE void *parse_header(struct arena *request, size_t size) { return keep(arena_alloc(request, size)); }

NOINLINE void handle(struct arena *request) {
    for (int i = 1; i <= 20; i++) parse_header(request, (size_t)i);
    arena_free(request, parse_header(request, 100));
    arena_reset(request);
}

NOINLINE void *in_parent(struct arena *arena) { return keep(arena_alloc(arena, 1000)); }
NOINLINE void *in_child(struct arena *arena) { return keep(arena_alloc(arena, 500)); }

static int forks(struct arena *arena) {
    void *mine[4];
    for (int i = 0; i < 4; i++) mine[i] = in_parent(arena);
    usleep(300000); // so that the collector reads the parent's events, and the child inherits its objects
    pid_t child = fork();
    if (child == 0) {
        arena_free(arena, mine[1]);
        in_child(arena), in_child(arena);
        usleep(300000);
        _exit(0);
    }
    int status = 1;
    waitpid(child, &status, 0);
    return status != 0;
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "calm";
    struct arena *connection = arena_new("connections");
    if (strcmp(mode, "fork") == 0) return forks(connection);
    struct pace p = pace_start(argc, argv, 3, 200);
    long requests = 0;
    while (pace_next(&p)) {
        struct arena *request = arena_new("requests");
        handle(request);
        arena_delete(request);
        if (strcmp(mode, "leak") == 0) remember_request(connection);
        if (strcmp(mode, "cache") == 0 && p.tick < 200) load_entry(connection);
        requests++;
    }
    printf("%ld requests\n", requests);
    return 0;
}
