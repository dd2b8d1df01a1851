//! The tests check with real files that edleak-record refuses a program that it cannot record. The tests also
//! check the kind of the error, and that the message is one line that ends with the remedy.

mod common;

use common::{run, scratch};
use edleak_binary::OwnMalloc;
use edleak_collector::start::check::{Program, check_program};
use edleak_collector::{Error, ErrorKind};
use std::ffi::OsStr;
use std::fs::{Permissions, set_permissions, write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

fn check(path: &Path) -> Result<Program, Error> {
    check_program(path.as_os_str(), None)
}

#[track_caller]
fn refused(path: &Path, kind: ErrorKind) {
    let refusal = check(path).expect_err("this cannot be recorded");
    assert_eq!(refusal.kind(), kind, "{refusal}");
    let line = refusal.to_string();
    assert!(line.starts_with("cannot record `") && line.ends_with(')') && !line.contains('\n'), "{line}");
    assert_eq!(refusal.exit_code(), if kind == ErrorKind::Missing { 127 } else { 126 });
}

fn executable(path: PathBuf, content: impl AsRef<[u8]>) -> PathBuf {
    write(&path, content).expect("the scratch directory can be written");
    set_permissions(&path, Permissions::from_mode(0o755)).expect("it is our file");
    path
}

/// Compiles C source with `cc`; `None`: the compiler fails, because no static libc or no 32-bit libc is
/// installed.
fn build(dir: &Path, name: &str, source: &str, flags: &[&str]) -> Option<PathBuf> {
    let file = dir.join(format!("{name}.c"));
    write(&file, source).expect("the scratch directory can be written");
    let output = dir.join(name);
    let compiled =
        Command::new("cc").arg(&file).arg("-o").arg(&output).args(flags).output().expect("cc is needed");
    if !compiled.status.success() {
        eprintln!("no libc for cc {flags:?}: {}", String::from_utf8_lossy(&compiled.stderr));
        return None;
    }
    Some(output)
}

const MAIN: &str = "int main(void) { return 0; }";

#[test]
fn an_ordinary_program_passes_by_path_and_by_path_variable() {
    let dir = scratch("check-plain");
    let program = build(&dir, "plain", MAIN, &[]).expect("cc can build a program");
    let expected = Program { path: program.clone(), image: program.clone(), own_malloc: None };
    assert_eq!(check(&program), Ok(expected.clone()));
    let path_env = format!("/nowhere:{}", dir.display());
    assert_eq!(check_program(OsStr::new("plain"), Some(OsStr::new(&path_env))), Ok(expected));
    let missing =
        check_program(OsStr::new("plain"), Some(OsStr::new("/nowhere"))).expect_err("it is not there");
    assert_eq!(missing.kind(), ErrorKind::Missing);
    assert_eq!(
        check_program(OsStr::new(""), None).map_err(|refusal| refusal.kind()),
        Err(ErrorKind::Missing)
    );
}

#[test]
fn program_that_exec_refuses_is_refused() {
    let dir = scratch("check-exec");
    refused(&dir.join("nothing"), ErrorKind::Missing);
    refused(&dir, ErrorKind::NotAProgram);
    write(dir.join("data"), "data").expect("the scratch directory can be written");
    refused(&dir.join("data"), ErrorKind::NotPermitted);
    refused(&executable(dir.join("empty"), ""), ErrorKind::NotAProgram);
    refused(&executable(dir.join("text"), "echo no shebang\n"), ErrorKind::NotAProgram);
    refused(&executable(dir.join("dangling"), "#!/nowhere/interpreter\n"), ErrorKind::Missing);
    let forbidden =
        check_program(OsStr::new("data"), Some(dir.as_os_str())).expect_err("it is not executable");
    assert_eq!(forbidden.kind(), ErrorKind::NotPermitted);
}

#[test]
fn scripts_are_judged_by_their_last_interpreter() {
    let dir = scratch("check-script");
    let program = build(&dir, "interpreter", MAIN, &[]).expect("cc can build a program");
    let first = executable(dir.join("first"), format!("#!{} -x\n", program.display()));
    let second = executable(dir.join("second"), format!("#! {}\n", first.display()));
    assert_eq!(check(&second), Ok(Program { path: second, image: program, own_malloc: None }));
    let own = dir.join("own");
    refused(&executable(own.clone(), format!("#!{}\n", own.display())), ErrorKind::NotAProgram);
}

#[test]
fn files_no_library_can_be_loaded_into_are_refused() {
    let dir = scratch("check-static");
    for (name, flags) in [("static", &["-static"]), ("static-pie", &["-static-pie"])] {
        if let Some(program) = build(&dir, name, MAIN, flags) {
            refused(&program, ErrorKind::Static);
        }
    }
    let library = build(&dir, "library.so", "int f(void) { return 0; }", &["-shared", "-fPIC"]);
    refused(&library.expect("cc can build a library"), ErrorKind::Static);
    let object = build(&dir, "object.o", MAIN, &["-c"]).expect("cc can compile");
    set_permissions(&object, Permissions::from_mode(0o755)).expect("it is our file");
    refused(&object, ErrorKind::NotAProgram);
}

#[test]
fn the_loader_itself_passes() {
    let headers = common::run(Command::new("readelf").args(["-l", "/bin/sh"]));
    let text = String::from_utf8_lossy(&headers);
    let loader = text.split("interpreter: ").nth(1).and_then(|rest| rest.split(']').next());
    let loader = Path::new(loader.expect("readelf shows the interpreter"));
    assert!(check(loader).is_ok(), "{:?}", check(loader));
}

#[test]
fn files_of_other_machines_are_refused() {
    let dir = scratch("check-foreign");
    let program = build(&dir, "native", MAIN, &[]).expect("cc can build a program");
    let native = std::fs::read(&program).expect("it was just built");
    let patched = |name: &str, at: usize, value: u8| {
        let mut bytes = native.clone();
        bytes[at] = value;
        executable(dir.join(name), bytes)
    };
    refused(&patched("32-bit", 4, 1), ErrorKind::Foreign);
    refused(&patched("aarch64", 18, 183), ErrorKind::Foreign);
    refused(&patched("big-endian", 5, 2), ErrorKind::Foreign);
    if let Some(program) = build(&dir, "i386", MAIN, &["-m32"]) {
        refused(&program, ErrorKind::Foreign);
    }
}

#[test]
fn a_damaged_file_is_refused_wherever_it_was_cut() {
    let dir = scratch("check-damaged");
    let program = build(&dir, "whole", MAIN, &[]).expect("cc can build a program");
    let whole = std::fs::read(&program).expect("it was just built");
    for length in [4, 5, 19, 20, 63, 64, 100, 700, 4096, 8192] {
        refused(&executable(dir.join(format!("cut{length}")), &whole[..length]), ErrorKind::NotAProgram);
    }
    let mut garbage = whole.clone();
    for (i, byte) in garbage[6..].iter_mut().enumerate().filter(|(i, _)| !(10..14).contains(i)) {
        *byte = (i * 37 + 11) as u8;
    }
    refused(&executable(dir.join("garbage"), &garbage), ErrorKind::NotAProgram);
    // The kernel ignores section headers and so runs a program without them, and edleak must record such a
    // program, too.
    let mut no_sections = whole;
    no_sections[40..48].fill(0xee);
    let no_sections = executable(dir.join("no-sections"), no_sections);
    run(&mut Command::new(&no_sections));
    assert!(check(&no_sections).is_ok());
}

#[test]
fn a_program_whose_loader_is_not_installed_is_refused() {
    let dir = scratch("check-loader");
    let flags = ["-Wl,--dynamic-linker=/nowhere/ld.so"];
    refused(&build(&dir, "orphan", MAIN, &flags).expect("cc can build a program"), ErrorKind::Missing);
}

#[test]
fn programs_that_gain_privileges_are_refused() {
    let dir = scratch("check-privileges");
    let program = build(&dir, "set-id", MAIN, &[]).expect("cc can build a program");
    // If a program file belongs to the user who runs the program, the setuid bit of the file does not raise
    // privileges.
    set_permissions(&program, Permissions::from_mode(0o6755)).expect("it is our file");
    assert!(check(&program).is_ok(), "{:?}", check(&program));
    if chown(&program, Some(65534), None).is_err() {
        return common::cannot_run("only root can give a file away");
    }
    set_permissions(&program, Permissions::from_mode(0o4755)).expect("we may do anything");
    refused(&program, ErrorKind::Privileged);
    // A set-id program also gains privileges if it is the interpreter of a script. The kernel ignores the
    // set-id bits of a script itself.
    let script = executable(dir.join("script"), format!("#!{}\n", program.display()));
    refused(&script, ErrorKind::Privileged);
    let sudo = dir.join("sudo");
    symlink(&program, &sudo).expect("the scratch directory can be written");
    let refusal = check(&sudo).expect_err("it is setuid");
    assert!(
        refusal.to_string().ends_with("(put edleak-record behind it: `sudo … edleak-record …`)"),
        "{refusal}"
    );
}

#[test]
fn sanitized_programs_are_refused() {
    let dir = scratch("check-sanitizer");
    for compiler in ["gcc", "clang"] {
        let source = dir.join("main.c");
        write(&source, MAIN).expect("the scratch directory can be written");
        let program = dir.join(compiler);
        let mut command = Command::new(compiler);
        command.arg("-fsanitize=address").arg(&source).arg("-o").arg(&program);
        if command.output().is_ok_and(|output| output.status.success()) {
            refused(&program, ErrorKind::Sanitizer);
        }
    }
}

#[test]
fn allocator_inside_the_program_is_noticed() {
    let dir = scratch("check-malloc");
    let allocator = "#include <stddef.h>\nstatic char pool[1 << 16]; static size_t used;\n\
                     void *NAME(size_t n) { used += n; return pool + used - n; }\n\
                     int main(void) { return NAME(3) == 0; }";
    let own_malloc = |name: &str, symbol: &str, flags: &[&str]| {
        let program = build(&dir, name, &allocator.replace("NAME", symbol), flags).expect("cc can build it");
        check(&program).expect("it can be started").own_malloc
    };
    let found = |symbol: &str| Some(OwnMalloc { symbol: symbol.into() });
    assert_eq!(own_malloc("exported", "malloc", &["-rdynamic"]), found("malloc"));
    assert_eq!(own_malloc("hidden", "malloc", &["-fvisibility=hidden"]), found("malloc"));
    assert_eq!(own_malloc("jemalloc", "_rjem_malloc", &[]), found("_rjem_malloc"));
    assert_eq!(own_malloc("mimalloc", "mi_malloc", &[]), found("mi_malloc"));
    assert_eq!(own_malloc("unrelated", "my_malloc", &[]), None);
}

#[test]
fn no_library_that_replaces_malloc_counts_as_the_programs_own() {
    let dir = scratch("check-libmalloc");
    let library = "#include <stddef.h>\nvoid *__libc_malloc(size_t); \
                   void *malloc(size_t n) { return __libc_malloc(n); }";
    build(&dir, "libown.so", library, &["-shared", "-fPIC"]).expect("cc can build a library");
    let here = dir.to_str().expect("cargo's directories are text");
    let source = "#include <stdlib.h>\nint main(void) { void *volatile p = malloc(1); return p == 0; }";
    let program = build(&dir, "uses", source, &["-L", here, "-lown"]).expect("cc can link it");
    assert_eq!(check(&program).expect("it can be recorded").own_malloc, None);
}
