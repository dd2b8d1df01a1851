//! Runs the operations of the library with the system's allocator alone. Linked statically.

fn main() {
    allocators::main();
}
