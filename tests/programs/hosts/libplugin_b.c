// A plugin that allocates; its twin libplugin_a.c is as large, so that one is loaded where the other was.
#include <stdlib.h>
__attribute__((noinline)) void *plugin_b_makes(size_t size) {
    void *p = malloc(size);
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}
void *make(size_t size) { return plugin_b_makes(size); }
void release(void *p) { free(p); }
