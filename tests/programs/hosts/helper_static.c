// A static program, into which the preload library cannot be loaded.
//#Build: -static
#include "check.h"
int main(void) {
    exercise(100);
    say("from a static program\n");
    return 3;
}
