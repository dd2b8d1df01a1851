// Writes all bytes that malloc_usable_size reports, as systemd does for its growing arrays.
#include "check.h"
#include <malloc.h>

int main(void) {
    static unsigned char *held[2000];
    static size_t usable[2000];
    for (int i = 0; i < 2000; i++) {
        held[i] = keep(malloc((size_t)i));
        usable[i] = malloc_usable_size(held[i]);
        memset(held[i], i & 255, usable[i]);
    }
    for (int i = 0; i < 2000; i++) {
        for (size_t n = 0; n < usable[i]; n++) CHECK(held[i][n] == (i & 255));
        CHECK(malloc_usable_size(held[i]) == usable[i]);
        held[i] = keep(realloc(held[i], usable[i]));
        CHECK(malloc_usable_size(held[i]) == usable[i]);
    }
    for (int i = 0; i < 2000; i++) free(held[i]);
    struct mallinfo2 info = mallinfo2();
    CHECK(info.hblks == 0); // the program's heap has no mappings, so edleak has made none
    CHECK(malloc_trim(0) >= 0);
    say("ok\n");
}
