//! The program with the system's allocator alone; linked statically.

fn main() {
    allocators::main();
}
