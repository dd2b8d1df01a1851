//! Sets a cfg that tells the files of recorder/session that this build uses loom's atomics. loom's atomics
//! are larger than the words in shared memory, so with loom, the files of recorder/session must not check the
//! sizes of their types.

fn main() {
    println!("cargo:rustc-cfg=edleak_loom");
    println!("cargo:rerun-if-changed=build.rs");
}
