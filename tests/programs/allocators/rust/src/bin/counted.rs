//! The program with the crate edleak-alloc around the system's allocator; linked statically.

use edleak_alloc::Counted;
use std::alloc::System;

#[global_allocator]
static ALLOCATOR: Counted<System> = Counted::new(System);

fn main() {
    allocators::main();
}
