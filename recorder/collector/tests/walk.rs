//! Walks whole stacks with the unwind tables that edleak compiles, and compares the frames with the frames
//! that libgcc's unwinder finds in the same process.

mod common;

use common::captured::{Captured, capture_library, captured};
use common::{run, source, try_run};
use edleak_session::rule::Kind;
use std::process::Command;

/// Asserts that edleak's walk and libgcc's walk reach the end of the stack and find the same frames. The
/// frame of capture() itself is not compared, because the two walks begin at different addresses in
/// capture().
#[track_caller]
fn assert_equals_libgcc(stack: &Captured, what: &str, at_least: usize) {
    let (frames, end) = stack.walk();
    assert_eq!(frames, stack.frames[1..], "{what}: {frames:x?} is not {:x?}", &stack.frames[1..]);
    assert_eq!(end, Kind::End, "{what}: the walk was cut");
    assert!(frames.len() >= at_least, "{what}: only {} frames", frames.len());
}

#[test]
fn c_stacks_equal_libgccs_through_recursion_callbacks_threads_and_signals() {
    let dir = capture_library("walk-c");
    for (compiler, flags) in [
        ("gcc", &["-O2", "-fomit-frame-pointer"][..]),
        ("gcc", &["-O2", "-fno-omit-frame-pointer"]),
        ("gcc", &["-O0"]),
        ("gcc", &["-O3", "-fno-pie", "-no-pie"]),
        ("clang", &["-O2", "-fomit-frame-pointer"]),
        ("clang", &["-O1", "-fno-omit-frame-pointer"]),
    ] {
        let program = dir.join("stacks");
        let mut command = Command::new(compiler);
        command.args(flags).arg(source("stacks.c")).arg("-o").arg(&program).arg("-L").arg(&dir);
        if try_run(command.args(["-lcapture", "-pthread"])).is_none() {
            continue;
        }
        for (kind, at_least) in [("recursion", 38), ("callback", 10), ("thread", 28), ("signal", 16)] {
            let what = format!("{compiler} {flags:?} {kind}");
            assert_equals_libgcc(&captured(&program, kind), &what, at_least);
        }
    }
}

#[test]
fn cpp_stacks_equal_libgccs_in_a_catch_handler_below_std_sort() {
    let dir = capture_library("walk-cpp");
    for (compiler, flags) in [("g++", &["-O2", "-fomit-frame-pointer"]), ("clang++", &["-O1", "-g"])] {
        let program = dir.join("stacks-cpp");
        let mut command = Command::new(compiler);
        command.args(flags).arg(source("stacks.cpp")).arg("-o").arg(&program).arg("-L").arg(&dir);
        if try_run(command.arg("-lcapture")).is_some() {
            assert_equals_libgcc(&captured(&program, ""), &format!("{compiler} {flags:?}"), 5);
        }
    }
}

#[test]
fn rust_stacks_equal_libgccs_in_a_spawned_thread() {
    let dir = capture_library("walk-rust");
    for optimized in ["-Copt-level=3", "-Copt-level=0"] {
        let program = dir.join("stacks-rs");
        let mut command = Command::new("rustc");
        command.args(["--edition=2024", "-lcapture", optimized, "-L"]).arg(&dir).arg("-o").arg(&program);
        run(command.arg(source("stacks.rs")));
        assert_equals_libgcc(&captured(&program, ""), optimized, 15);
    }
}
