// A library with the arena of the program pool_server. The arena's functions report each object to edleak.
#include <edleak.h>
#include <stdlib.h>

enum { CHUNK = 64 << 10 };

struct chunk { struct chunk *next; size_t used; char bytes[CHUNK]; };
struct arena { struct chunk *chunks; };

struct arena *arena_new(const char *name) {
    struct arena *arena = calloc(1, sizeof *arena);
    if (name) edleak_pool_name(arena, name);
    return arena;
}

__attribute__((noinline)) static struct chunk *arena_grow(struct arena *arena) {
    struct chunk *chunk = malloc(sizeof *chunk);
    chunk->next = arena->chunks;
    chunk->used = 0;
    return arena->chunks = chunk;
}

void *arena_alloc(struct arena *arena, size_t size) {
    struct chunk *chunk = arena->chunks;
    size_t room = (size + 15) / 16 * 16;
    if (!chunk || chunk->used + room > CHUNK) chunk = arena_grow(arena);
    void *object = chunk->bytes + chunk->used;
    chunk->used += room;
    edleak_pool_alloc(arena, object, size);
    return object;
}

void arena_free(struct arena *arena, void *object) { edleak_pool_free(arena, object); }

// Frees all objects of the arena. Keeps its first chunk for the next request.
void arena_reset(struct arena *arena) {
    edleak_pool_reset(arena);
    while (arena->chunks && arena->chunks->next) {
        struct chunk *chunk = arena->chunks;
        arena->chunks = chunk->next;
        free(chunk);
    }
    if (arena->chunks) arena->chunks->used = 0;
}

void arena_delete(struct arena *arena) {
    arena_reset(arena);
    free(arena->chunks);
    free(arena);
}
