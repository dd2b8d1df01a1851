// A program with its own allocator. The program foreign_malloc starts this program.
#include "checking_malloc.h"

#include "allocate_everything.h"

int main() {
    allocate_everything();
    say("ok\n");
}
