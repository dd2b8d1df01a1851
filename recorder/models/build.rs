//! Sets a cfg that tells the files of recorder/session that they use loom's atomics. The sizes of loom's
//! atomics differ from the sizes of the words in shared memory.

fn main() {
    println!("cargo:rustc-cfg=edleak_loom");
    println!("cargo:rerun-if-changed=build.rs");
}
