//! Runs the operations of the library with the system's allocator, without edleak-alloc. Linked statically.

fn main() {
    allocators::main();
}
