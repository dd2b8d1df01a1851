// A plugin that allocates. It is as large as libplugin_b.c, so both can be loaded in turn at one address.
#include <stdlib.h>
__attribute__((noinline)) void *plugin_a_makes(size_t size) {
    void *p = malloc(size);
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}
void *make(size_t size) { return plugin_a_makes(size); }
void release(void *p) { free(p); }
