//! Passes the arguments of the file link-arguments to the linker. The preload library is linked without start
//! files and without other libraries, so that one .so works with every libc. The loader binds all symbols
//! when it loads the library.

fn main() {
    // The build script of edleak-record also reads the file link-arguments: the script builds the copy of
    // this library that the program edleak-record contains.
    for argument in include_str!("link-arguments").lines() {
        println!("cargo:rustc-cdylib-link-arg={argument}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=link-arguments");
}
