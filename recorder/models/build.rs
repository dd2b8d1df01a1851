//! Sets a cfg for loom's atomics, whose sizes differ from the words of shared memory.

fn main() {
    println!("cargo:rustc-cfg=edleak_loom");
    println!("cargo:rerun-if-changed=build.rs");
}
