//! Link arguments: no start files and no libraries, so that one .so works with every libc. All symbols are
//! bound at load time.

fn main() {
    // The build script of edleak-record reads the same file when it builds the copy of this library that
    // edleak-record embeds.
    for argument in include_str!("link-arguments").lines() {
        println!("cargo:rustc-cdylib-link-arg={argument}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=link-arguments");
}
