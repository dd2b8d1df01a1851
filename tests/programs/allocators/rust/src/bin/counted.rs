//! Runs the random operations of `src/lib.rs` with edleak-alloc's `Counted` around the system's allocator.
//! Linked statically.

use edleak_alloc::Counted;
use std::alloc::System;

#[global_allocator]
static ALLOCATOR: Counted<System> = Counted::new(System);

fn main() {
    allocators::main();
}
