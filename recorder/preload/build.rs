//! Link arguments: no start files, no libraries, so that one .so serves every libc; all symbols bound at load.

fn main() {
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-Wl,-z,now",
        "-Wl,-z,relro",
        "-Wl,-z,noexecstack",
        "-Wl,-z,max-page-size=4096",
        "-Wl,-soname,libedleak_preload.so",
    ] {
        println!("cargo:rustc-cdylib-link-arg={argument}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
