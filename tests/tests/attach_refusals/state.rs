//! Tests processes into which the library cannot be loaded because of their state or their kind.

use super::{Fed, TempDir, answering, is_root, refused, refused_and_answers};
use edleak_tests::ledger_program::{ask, stop};
use edleak_tests::run::{Running, cannot_run, run, wait_for};
use edleak_tests::tools::tools;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn signal(pid: u32, signal: i32) {
    // SAFETY: the test has not waited for its child, so the ID still belongs to the child.
    unsafe { libc::kill(pid as i32, signal) };
}

fn state_of(pid: u32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('?')
}

#[test]
fn stopped_process_is_refused() {
    let mut program = answering("plain");
    let pid = program.pid();
    signal(pid, libc::SIGSTOP);
    wait_for("a stopped process", || state_of(pid) == 'T');
    refused(pid, &["it is stopped (let it go on: `kill -CONT "]);
    assert_eq!(state_of(pid), 'T', "it is still stopped");
    signal(pid, libc::SIGCONT);
    assert_eq!((program.ask("a").as_str(), program.finish().as_str()), ("a", "sound\n"));
}

/// Ends a process while edleak-record waits until one of its threads can load the library.
#[test]
fn process_that_ends_during_the_attach_is_told_at_once() {
    let dir = TempDir::new("attach-ended");
    let trace = dir.join("trace.edl");
    let program = answering("handler");
    let pid = program.pid();
    let recorder = Running::start(&mut super::recorder(pid, &trace, &["--attach-timeout", "600s"]), b"");
    let tracer = format!("TracerPid:\t{}\n", recorder.pid());
    let status = || std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    wait_for("an attempt of edleak-record", || status().contains(&tracer));
    drop(program);
    let reason = format!("cannot record process {pid}: it has just ended (name one that runs)");
    super::is_refusal(&recorder.finish(), &trace, &[&reason]);
}

fn refused_while_traced(name: &str, tracer: &mut Command) {
    let mut program = answering("plain");
    let status = format!("/proc/{}/status", program.pid());
    let is_traced = || std::fs::read_to_string(&status).is_ok_and(|text| !text.contains("TracerPid:\t0"));
    let tracer = tracer.args(["-p", &program.pid().to_string()]).stdin(Stdio::piped());
    let mut tracer: Child =
        tracer.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it is installed");
    wait_for("the tracer", is_traced);
    // After gdb has attached to the program, gdb still reads files and writes breakpoints. So the test waits
    // until gdb sleeps and the program is stopped.
    if name == "gdb" {
        wait_for("gdb to wait", || state_of(tracer.id()) == 'S' && state_of(program.pid()) == 't');
    }
    let reason = format!("`{name}` (pid {}) traces it already", tracer.id());
    let dir = TempDir::new("attach-traced");
    let trace = dir.join("trace.edl");
    let outcome = run(&mut super::recorder(program.pid(), &trace, &["--attach-timeout", "3s"]));
    super::is_refusal(&outcome, &trace, &[&reason, "(end that program, or let it detach)"]);
    assert!(is_traced(), "{name} still traces it");
    signal(tracer.id(), if name == "gdb" { libc::SIGKILL } else { libc::SIGTERM });
    tracer.wait().expect("ours");
    wait_for("the end of the tracer", || !is_traced());
    signal(program.pid(), libc::SIGCONT);
    assert_eq!((program.ask("a").as_str(), program.finish().as_str()), ("a", "sound\n"));
}

#[test]
fn process_that_strace_traces_is_refused() {
    refused_while_traced("strace", Command::new("strace").args(["-f", "-o", "/dev/null"]));
}

#[test]
fn process_that_gdb_traces_is_refused() {
    refused_while_traced("gdb", Command::new("gdb").args(["-q", "-nx"]));
}

/// Freezes a process in a new control group below `hierarchy`. After the check, thaws the process and removes
/// the control group. Returns whether this machine mounts the version of control groups that has `file`: many
/// machines mount only version 1 or only version 2.
fn refused_while_frozen(hierarchy: &Path, file: &str, [frozen, thawed]: [&str; 2]) -> bool {
    let group = hierarchy.join(format!("edleak-test-{}", std::process::id()));
    if std::fs::create_dir(&group).is_err() || !group.join(file).exists() {
        let _ = std::fs::remove_dir(&group);
        return false;
    }
    let mut program = answering("plain");
    std::fs::write(group.join("cgroup.procs"), program.pid().to_string()).expect("root may move it");
    std::fs::write(group.join(file), frozen).expect("root may freeze it");
    let remedy = format!("write {thawed} to `{}`", group.join(file).display());
    let outcome =
        std::panic::catch_unwind(|| refused(program.pid(), &["its control group is frozen (let", &remedy]));
    std::fs::write(group.join(file), thawed).expect("root may thaw it");
    outcome.expect("it is refused");
    assert_eq!((program.ask("a").as_str(), program.finish().as_str()), ("a", "sound\n"));
    wait_for("an empty group", || std::fs::remove_dir(&group).is_ok());
    true
}

#[test]
fn frozen_process_is_refused_with_the_file_that_thaws_it() {
    if !is_root() {
        return;
    }
    let root = Path::new("/sys/fs/cgroup");
    let unified = root.join("unified");
    let unified = if unified.exists() { &unified } else { root };
    let is_run = [
        refused_while_frozen(unified, "cgroup.freeze", ["1", "0"]),
        refused_while_frozen(&root.join("freezer"), "freezer.state", ["FROZEN", "THAWED"]),
    ];
    if is_run == [false; 2] {
        cannot_run("this machine mounts no control groups");
    }
}

#[test]
fn process_whose_main_thread_has_ended_is_refused() {
    let mut program = answering("main-ends");
    let pid = program.pid();
    wait_for("the end of the main thread", || state_of(pid) == 'Z');
    let dir = TempDir::new("attach-main-ended");
    let trace = dir.join("trace.edl");
    let outcome = run(&mut super::recorder(pid, &trace, &[]));
    super::is_refusal(&outcome, &trace, &["its main thread has ended", "(start the process with"]);
    assert_eq!((program.ask("a").as_str(), program.finish().as_str()), ("a", "sound\n"));
}

/// Builds the program tests/programs/attach_answer.c with `compiler` and `flags`.
fn built(dir: &TempDir, compiler: &str, flags: &[&str]) -> PathBuf {
    let source = edleak_tests::tools::repository().join("tests/programs/attach_answer.c");
    let program = dir.join("attach_answer");
    let mut command = Command::new(compiler);
    command
        .args(["-O1", "-fno-builtin", "-D_GNU_SOURCE", "-pthread", "-w"])
        .arg("-o")
        .arg(&program)
        .arg(source)
        .args(flags);
    let outcome = run(&mut command);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    program
}

#[test]
fn static_program_is_refused() {
    let dir = TempDir::new("attach-static");
    let program = Fed::start(&built(&dir, "gcc", &["-static"]), &[], "ready");
    refused_and_answers(program, &["it is statically linked", "(link it without `-static`)"]);
}

#[test]
fn program_with_a_sanitizer_is_refused() {
    let dir = TempDir::new("attach-sanitizer");
    for flags in [
        &["-fsanitize=address"][..],
        &["-fsanitize=address", "-static-libasan"],
        &["-fsanitize=thread"],
        &["-fsanitize=leak"],
    ] {
        let program = Fed::start(&built(&dir, "gcc", flags), &[], "ready");
        let texts =
            ["it is built with a sanitizer that replaces the allocator", "(build it without `-fsanitize`)"];
        refused_and_answers(program, &texts);
    }
}

/// edleak-record cannot load its library into a running program with musl. The message of the refusal
/// recommends to start the program with the idle library. edleak can record a program that was started with
/// the idle library.
#[test]
fn program_with_musl_is_refused_and_its_preload_works() {
    let dir = TempDir::new("attach-musl");
    let program =
        built(&dir, "musl-gcc", &["-idirafter/usr/include", "-idirafter/usr/include/x86_64-linux-gnu"]);
    let remedy = format!("(start it with `edleak-record --idle {}`)", program.display());
    let plain = Fed::start(&program, &[], "ready");
    refused_and_answers(plain, &["it uses musl, whose loader cannot give edleak's library", &remedy]);

    let path = program.display().to_string();
    let mut idle = Fed::start(&tools().record, &["--idle", &path], "ready");
    let recorder = ask(idle.pid(), &dir.join("trace.edl"), &[]);
    assert_eq!(idle.ask("a"), "a");
    edleak_tests::ledger_program::wait_for_recording(idle.pid());
    stop(recorder);
    assert_eq!((idle.ask("a").as_str(), idle.finish().as_str()), ("a", "sound\n"));
}

#[test]
fn program_of_32_bits_is_refused() {
    const SOURCE: &str = ".globl _start\n_start:\n\
        movl $4, %eax\nmovl $1, %ebx\nmovl $message, %ecx\nmovl $6, %edx\nint $0x80\n\
        movl $3, %eax\nmovl $0, %ebx\nmovl $byte, %ecx\nmovl $1, %edx\nint $0x80\n\
        movl $1, %eax\nmovl $0, %ebx\nint $0x80\n\
        .data\nmessage: .ascii \"ready\\n\"\nbyte: .byte 0\n";
    let dir = TempDir::new("attach-32-bits");
    let [source, object, program] = ["a.s", "a.o", "a"].map(|name| dir.join(name));
    std::fs::write(&source, SOURCE).expect("writable");
    for command in [
        Command::new("as").arg("--32").arg("-o").arg(&object).arg(&source),
        Command::new("ld").args(["-m", "elf_i386", "-o"]).arg(&program).arg(&object),
    ] {
        let outcome = run(command);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    }
    if run(&mut Command::new(&program)).code != 0 {
        return cannot_run("the kernel runs no programs of 32 bits");
    }
    let program = Fed::start(&program, &[], "ready");
    refused(program.pid(), &["it is built for another machine (edleak records x86-64 programs)"]);
    assert_eq!(program.finish(), "");
}

/// A program for arm64 that prints `ready` and reads a byte, as an ELF file with one segment. clang makes the
/// machine code. The test writes the ELF headers itself, so it needs no linker for arm64.
fn program_for_arm64(dir: &TempDir) -> PathBuf {
    const SOURCE: &str = ".globl _start\n_start:\n\
        mov x8, #64\nmov x0, #1\nadr x1, message\nmov x2, #6\nsvc #0\n\
        mov x8, #63\nmov x0, #0\nadr x1, message\nmov x2, #1\nsvc #0\n\
        mov x8, #93\nmov x0, #0\nsvc #0\nmessage: .ascii \"ready\\n\"\n";
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 0x78;
    let [source, object, code, program] = ["a.s", "a.o", "code", "a"].map(|name| dir.join(name));
    std::fs::write(&source, SOURCE).expect("writable");
    for command in [
        Command::new("clang").args(["--target=aarch64-linux-gnu", "-c", "-o"]).arg(&object).arg(&source),
        Command::new("llvm-objcopy").args(["-O", "binary", "--only-section=.text"]).arg(&object).arg(&code),
    ] {
        let outcome = run(command);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    }
    let code = std::fs::read(&code).expect("made above");
    let size = HEADERS + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let words =
        |file: &mut Vec<u8>, words: &[u64]| file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    let halves =
        |file: &mut Vec<u8>, halves: &[u16]| file.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
    // In the ELF header, type 2 is a program, machine 183 is AArch64, and the version is 1.
    halves(&mut file, &[2, 183, 1, 0]);
    words(&mut file, &[BASE + HEADERS, 64, 0]);
    // The end of the ELF header: the flags (0), then the sizes and numbers of the headers.
    halves(&mut file, &[0, 0, 64, 56, 1, 0, 0, 0]);
    // The program header: the only segment of the program may be read, written and executed.
    words(&mut file, &[1 | 7 << 32, 0, BASE, BASE, size, size, 0x1000]);
    file.extend(code);
    std::fs::write(&program, file).expect("writable");
    edleak_tests::run::run(Command::new("chmod").arg("+x").arg(&program));
    program
}

#[test]
fn emulated_program_of_another_machine_is_refused() {
    let dir = TempDir::new("attach-emulated");
    let guest = program_for_arm64(&dir).display().to_string();
    let program = Fed::start(Path::new("qemu-aarch64"), &[&guest], "ready");
    // At its start, the emulator qemu translates the emulated program and protects the program's code. The
    // test waits until the emulated program reads its standard input.
    let syscall = format!("/proc/{}/syscall", program.pid());
    wait_for("a read", || std::fs::read_to_string(&syscall).is_ok_and(|text| text.starts_with("0 ")));
    let reason = format!("it emulates `{guest}`, a program for another machine");
    refused(program.pid(), &[&reason, "(edleak records x86-64 programs)"]);
    assert_eq!(program.finish(), "");
}
