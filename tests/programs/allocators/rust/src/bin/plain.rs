//! Runs the random operations of `src/lib.rs` with the system's allocator, without edleak-alloc. Linked
//! statically.

fn main() {
    allocators::main();
}
