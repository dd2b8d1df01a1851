//! Link arguments: no start files, no libraries, so that one .so serves every libc; all symbols bound at load.

fn main() {
    // edleak-record's build script reads the same file for the copy that it embeds.
    for argument in include_str!("link-arguments").lines() {
        println!("cargo:rustc-cdylib-link-arg={argument}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=link-arguments");
}
