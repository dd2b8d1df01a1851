// A plugin that allocates. libplugin_a.c has the same size, so one can be loaded where the other was before.
#include <stdlib.h>
__attribute__((noinline)) void *plugin_b_makes(size_t size) {
    void *p = malloc(size);
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}
void *make(size_t size) { return plugin_b_makes(size); }
void release(void *p) { free(p); }
