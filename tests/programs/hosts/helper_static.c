// A static program. The preload library cannot be loaded into it.
//#Build: -static
#include "check.h"
int main(void) {
    exercise(100);
    say("from a static program\n");
    return 3;
}
