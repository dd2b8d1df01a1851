// A program with an allocator of its own, which another starts.
#include "checking_malloc.h"

#include "allocate_everything.h"

int main() {
    allocate_everything();
    say("ok\n");
}
