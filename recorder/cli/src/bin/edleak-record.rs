//! The program edleak-record.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    edleak_record::main()
}
