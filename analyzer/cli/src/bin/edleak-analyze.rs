//! The program edleak-analyze.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    edleak_analyze::main()
}
