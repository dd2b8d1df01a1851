// A static program: the preload cannot be in it.
//#Build: -static
#include "check.h"
int main(void) {
    exercise(100);
    say("from a static program\n");
    return 3;
}
