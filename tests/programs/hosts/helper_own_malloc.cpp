// A program with its own allocator, started by another program.
#include "checking_malloc.h"

#include "allocate_everything.h"

int main() {
    allocate_everything();
    say("ok\n");
}
