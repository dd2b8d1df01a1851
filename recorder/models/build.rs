//! Says that the atomics are those of loom, which have other sizes than the words of shared memory.

fn main() {
    println!("cargo:rustc-cfg=edleak_loom");
    println!("cargo:rerun-if-changed=build.rs");
}
