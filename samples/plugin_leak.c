// Calls message handlers through function pointers. The handler for one of five kinds of message leaks.
//
//#Expect: Leak in handle_status
//#Expect: nothing else
#include "pace.h"

static void *current;

#define RELEASED(name, bytes)                                                                                \
    NOINLINE void name(void) {                                                                               \
        free(current);                                                                                       \
        current = keep(malloc(bytes));                                                                       \
    }
RELEASED(handle_text, 100)
RELEASED(handle_image, 4000)
RELEASED(handle_audio, 2000)
RELEASED(handle_typing, 16)
NOINLINE void handle_status(void) { keep(malloc(48)); }

int main(int argc, char **argv) {
    static void (*const handlers[])(void) = {handle_text, handle_image, handle_audio, handle_typing,
                                             handle_status};
    struct pace p = pace_start(argc, argv, 5, 400);
    while (pace_next(&p)) handlers[pace_random() % 5]();
}
