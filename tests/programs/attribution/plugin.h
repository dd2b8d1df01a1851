// A plugin that leaks its configuration. Two libraries are built from this file, with different sizes.
#include <stdlib.h>
#include <string.h>
static char *keep;
__attribute__((noinline)) static char *load_config(int v) {
    char *c = malloc(CONFIG_BYTES);
    memset(c, v, CONFIG_BYTES);
    return c;
}
__attribute__((noinline)) void plugin_init(int v) { keep = load_config(v); } // nobody frees it at dlclose
int plugin_work(int v) { return keep[v % 100]; }
