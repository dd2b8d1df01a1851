//! Checks, before a program is started, that edleak can record the program. If edleak cannot record the
//! program, reports the reason and the remedy.
//!
//! The dynamic loader loads edleak's library through LD_PRELOAD. So edleak can record only a program that
//! uses the dynamic loader of this system, or that contains the crate edleak-alloc. If a program gains
//! privileges, the loader ignores LD_PRELOAD. If a security module raises the privileges of a program, this
//! check does not notice it. If the loader ignores LD_PRELOAD, the program starts without the library, and
//! edleak records nothing.
#![allow(unsafe_code)] // makes system calls that std does not have

use crate::detour::Prefixes;
use crate::detour::entries::allocator_of;
use crate::error::{Error, ErrorKind};
use crate::sys::shell;
use edleak_binary::ErrorKind as ElfErrorKind;
use edleak_binary::OwnMalloc;
use edleak_binary::elf::Elf;
use edleak_binary::file_bytes::FileBytes;
use edleak_session::IDENTITY;
use edleak_session::idle::NOTE_OWNER;
use edleak_text::reason::reason;
use std::ffi::{CString, OsStr};
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fmt, io};

/// A program that has passed the check: edleak can probably record this program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// The file to execute: the given path, or the file found in PATH.
    pub path: PathBuf,
    /// The ELF file that the process will run: `path`, or the last interpreter of a script.
    pub image: PathBuf,
    /// The allocator that the file `image` contains and that the code in this file uses; edleak does not see
    /// the calls of this allocator. `None`: the file contains no allocator.
    pub own_malloc: Option<OwnMalloc>,
}

/// The error for a program that edleak cannot record, with the reason and the remedy.
fn refused(
    kind: ErrorKind,
    path: impl AsRef<Path>,
    reason: impl fmt::Display,
    remedy: impl Into<String>,
) -> Error {
    let message = format!("cannot record `{}`: {reason}", path.as_ref().display());
    Error::new(kind, message).with_remedy(remedy)
}

/// If the interpreter of a script is itself a script, the kernel follows at most this number of scripts in a
/// row.
const MAX_SCRIPTS: usize = 5;
/// The kernel reads at most this number of bytes of a script's first line.
const MAX_SHEBANG: usize = 256;

/// Finds the file of `program` as `execvp` would (`path_env` is the value of PATH), and checks that edleak
/// can record this program.
///
/// # Errors
/// The program is missing, or edleak cannot record it. The error contains the reason and a remedy.
pub fn check_program(program: &OsStr, path_env: Option<&OsStr>) -> Result<Program, Error> {
    let path = find(program, path_env)?;
    let mut image = path.clone();
    for _ in 0..=MAX_SCRIPTS {
        let metadata = check_file(&image)?;
        let bytes = FileBytes::open(&image).map_err(|error| {
            let reason = format!("it cannot be read: {}", reason(&error));
            refused(ErrorKind::NotPermitted, &image, reason, "make it readable")
        })?;
        if !bytes.starts_with(b"#!") {
            check_privileges(&image, &metadata)?;
            let own_malloc = check_elf(&image, &bytes)?;
            return Ok(Program { path, image, own_malloc });
        }
        image = interpreter_of(&image, &bytes, path_env)?;
    }
    Err(refused(
        ErrorKind::NotAProgram,
        path,
        "its interpreters are scripts without end",
        "record the program that interprets it",
    ))
}

/// Finds the file of a program. If `program` contains a slash, `program` is the path of the file. If
/// `program` contains no slash, the file is the first executable file of this name in the directories of
/// PATH.
fn find(program: &OsStr, path_env: Option<&OsStr>) -> Result<PathBuf, Error> {
    if program.as_bytes().contains(&b'/') {
        return Ok(PathBuf::from(program));
    }
    let mut forbidden = None;
    if !program.is_empty() {
        // if PATH is not set, execvp searches these directories
        let directories = path_env.unwrap_or(OsStr::new("/bin:/usr/bin"));
        for directory in directories.as_bytes().split(|&byte| byte == b':') {
            // An empty entry of PATH means the current directory.
            let directory = if directory.is_empty() { b"." } else { directory };
            let candidate = Path::new(OsStr::from_bytes(directory)).join(program);
            match std::fs::metadata(&candidate) {
                Ok(metadata) if metadata.is_file() && may_execute(&candidate) => return Ok(candidate),
                Ok(_) => forbidden = forbidden.or(Some(candidate)),
                Err(_) => {}
            }
        }
    }
    if let Some(candidate) = forbidden {
        check_file(&candidate)?;
    }
    let here = Path::new(program).is_file();
    let below_here = shell::word(Path::new(".").join(program));
    let advice = if here { format!("write `{below_here}`") } else { "give its path".into() };
    Err(refused(ErrorKind::Missing, program, "there is no such program in PATH", advice))
}

/// Returns an error for a file that the kernel would not execute.
fn check_file(path: &Path) -> Result<Metadata, Error> {
    let metadata = std::fs::metadata(path).map_err(|error| {
        if error.kind() == io::ErrorKind::PermissionDenied {
            let reason = "a directory of its path may not be searched";
            return refused(ErrorKind::NotPermitted, path, reason, "record as a user who may");
        }
        refused(ErrorKind::Missing, path, reason(&error), "check the path")
    })?;
    if metadata.is_dir() {
        return Err(refused(ErrorKind::NotAProgram, path, "it is a directory", "name the program in it"));
    }
    if !metadata.is_file() {
        return Err(refused(ErrorKind::NotAProgram, path, "it is not a regular file", "name a program"));
    }
    if !may_execute(path) {
        let remedy =
            format!("`chmod +x {}`, and check that its file system is not mounted noexec", shell::path(path));
        return Err(refused(ErrorKind::NotPermitted, path, "it may not be executed", remedy));
    }
    Ok(metadata)
}

/// The path of the interpreter that the first line of a script names. If the first line names `env`, the
/// result is the path of the program that `env` will run.
fn interpreter_of(script: &Path, bytes: &[u8], path_env: Option<&OsStr>) -> Result<PathBuf, Error> {
    let line = &bytes[2..bytes.len().min(MAX_SHEBANG)];
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii();
    let (interpreter, argument) = match line.iter().position(|byte| matches!(byte, b' ' | b'\t')) {
        Some(blank) => (&line[..blank], line[blank..].trim_ascii()),
        None => (line, &b""[..]),
    };
    if interpreter.is_empty() {
        let reason = "its first line names no interpreter";
        return Err(refused(ErrorKind::NotAProgram, script, reason, "write one behind `#!`"));
    }
    let interpreter = PathBuf::from(OsStr::from_bytes(interpreter));
    if interpreter.file_name() == Some(OsStr::new("env")) && !argument.is_empty() {
        return find_for_env(script, argument, path_env);
    }
    if !interpreter.exists() {
        let reason = format!("its interpreter `{}` does not exist", interpreter.display());
        return Err(refused(ErrorKind::Missing, script, reason, "correct its first line"));
    }
    Ok(interpreter)
}

/// The program that `#!/usr/bin/env ARGUMENT` runs. In the first line of a script, the kernel passes all
/// words after `env` as one argument. If this argument begins with the option `-S`, `env` splits the argument
/// into words.
fn find_for_env(script: &Path, argument: &[u8], path_env: Option<&OsStr>) -> Result<PathBuf, Error> {
    let mut words: Vec<&[u8]> =
        match argument.strip_prefix(b"-S").or(argument.strip_prefix(b"--split-string=")) {
            Some(rest) => rest.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect(),
            None => vec![argument],
        };
    words.reverse();
    while let Some(word) = words.pop() {
        match word {
            b"-i" | b"-" | b"--ignore-environment" => {
                let reason = "its first line starts it with `env -i`, which drops LD_PRELOAD";
                let remedy = "record its interpreter";
                return Err(refused(ErrorKind::CleanEnvironment, script, reason, remedy));
            }
            b"-u" | b"--unset" | b"-C" | b"--chdir" => drop(words.pop()),
            _ if word.starts_with(b"-") || word.contains(&b'=') => {}
            _ => {
                let name = OsStr::from_bytes(word);
                return find(name, path_env).map_err(|error| {
                    let reason = format!("its first line names `{}`, which cannot be run", name.display());
                    refused(error.kind(), script, reason, "install it")
                });
            }
        }
    }
    let reason = "its first line gives `env` no program";
    Err(refused(ErrorKind::NotAProgram, script, reason, "name one there"))
}

/// Returns an error if no library can be preloaded into a program. If a library can be preloaded, returns the
/// allocator that the program's file contains; `None`: the file contains no allocator.
fn check_elf(path: &Path, bytes: &[u8]) -> Result<Option<OwnMalloc>, Error> {
    let refuse = |kind, reason: &dyn fmt::Display, remedy: &str| Err(refused(kind, path, reason, remedy));
    let elf = match Elf::parse(bytes).and_then(|elf| elf.check_segments().map(|()| elf)) {
        Ok(elf) => elf,
        Err(error) => match error.kind() {
            ElfErrorKind::NotElf => {
                let reason = "it is neither an ELF file nor a script that starts with `#!`";
                let remedy = "record its interpreter: `edleak-record sh …`";
                return refuse(ErrorKind::NotAProgram, &reason, remedy);
            }
            ElfErrorKind::Foreign => {
                return refuse(ErrorKind::Foreign, &format!("it is {error}"), "build it for x86-64");
            }
            _ => {
                let reason = format!("it is {error}");
                return refuse(ErrorKind::NotAProgram, &reason, "build or install it again");
            }
        },
    };
    if !matches!(elf.file_type(), object::elf::ET_EXEC | object::elf::ET_DYN) {
        let reason = "it is an object file or a core dump";
        return refuse(ErrorKind::NotAProgram, &reason, "link it, or name its program");
    }
    match elf.interpreter() {
        Some(loader) if !loader.exists() => {
            let reason = format!("its loader `{}` is not installed", loader.display());
            return refuse(ErrorKind::Missing, &reason, "install the libc it was built for");
        }
        Some(_) => {}
        // The program to record is itself a dynamic loader, which a user can run by hand (`ld.so ./program`).
        // This program needs no other loader, because it loads the libraries of LD_PRELOAD itself. The loader
        // of musl is also the libc of musl; a preloaded `malloc` takes precedence over the `malloc` of this
        // libc.
        None if elf.mentioned(&["_dl_debug_state"]).is_some() => return Ok(None),
        None => return check_static(path, &elf).map(|()| None),
    }
    let sanitizers = ["address", "hwaddress", "thread", "memory", "leak"];
    let inits = ["__asan_init", "__hwasan_init", "__tsan_init", "__msan_init", "__lsan_init"];
    let mentioned = elf.mentioned(&inits);
    if let Some((sanitizer, _)) = sanitizers.iter().zip(inits).find(|(_, init)| Some(*init) == mentioned) {
        let reason = "it is built with a sanitizer that replaces the allocator";
        let remedy = format!("build it without `-fsanitize={sanitizer}`");
        return refuse(ErrorKind::Sanitizer, &reason, &remedy);
    }
    Ok(own_malloc_in(&elf))
}

/// Returns an error for a statically linked program, unless the program contains the crate edleak-alloc in
/// this version of edleak and so counts its own allocations.
fn check_static(path: &Path, elf: &Elf<'_>) -> Result<(), Error> {
    let refuse =
        |reason: &dyn fmt::Display, remedy: &str| Err(refused(ErrorKind::Static, path, reason, remedy));
    let Some(identity) = elf.note(OWNER, object::elf::NoteType(IDENTITY_NOTE)) else {
        let remedy =
            "link it without `-static`; in Rust, wrap its global allocator in `edleak_alloc::Counted`";
        return refuse(&"it is statically linked, so no library can be loaded into it", remedy);
    };
    let identity = identity.split(|&byte| byte == 0).next().unwrap_or_default();
    if identity == IDENTITY.trim_end_matches('\0').as_bytes() {
        return Ok(());
    }
    // The crate edleak-alloc contains the code of the preload library, so the ELF note of the crate has the
    // same form as the ELF note of the library.
    let version = |text: &str| text.split_once(' ').map_or(text, |(_, version)| version).to_owned();
    let reason = format!(
        "it has version {} of the crate edleak-alloc in it, and this edleak-record is of {}",
        version(&String::from_utf8_lossy(identity)),
        version(IDENTITY.trim_end_matches('\0'))
    );
    refuse(&reason, "build both of one version")
}

/// The owner and the kind of the ELF note that contains a version.
const OWNER: &[u8] = NOTE_OWNER.split_at(NOTE_OWNER.len() - 1).0;
const IDENTITY_NOTE: u32 = 1;

/// The allocator that the file of a running program contains; `None`: the file contains no allocator.
pub(crate) fn own_malloc_of(program: &Path) -> Option<OwnMalloc> {
    let bytes = FileBytes::open(program).ok()?;
    own_malloc_in(&Elf::parse(&bytes).ok()?)
}

fn own_malloc_in(elf: &Elf<'_>) -> Option<OwnMalloc> {
    let by_table = || allocator_of(elf, &Prefixes::default());
    elf.own_malloc().or_else(|| by_table().map(|symbol| OwnMalloc { symbol }))
}

/// The user ID and the group ID with which this process starts the program.
#[derive(Clone, Copy)]
struct Identity {
    uid: u32,
    gid: u32,
}

/// Returns an error for a program whose file raises the privileges of the process. If a program's file raises
/// the privileges of its process, the kernel sets AT_SECURE, and the loader then ignores LD_PRELOAD without a
/// message.
fn check_privileges(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    let us = Identity { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() };
    let gain = gained_id(metadata.mode(), metadata.uid(), metadata.gid(), us);
    let gain = gain.filter(|_| !is_nosuid(path) && !has_no_new_privileges());
    let gain = gain.or_else(|| {
        (us.uid != 0 && has_capabilities(path) && !is_nosuid(path)).then_some("has capabilities")
    });
    let Some(gain) = gain else { return Ok(()) };
    let name = path.file_name().unwrap_or_default();
    let advice = if ["sudo", "doas", "pkexec", "su", "runuser"].iter().any(|changer| name == *changer) {
        format!("put edleak-record behind it: `{} … edleak-record …`", name.display())
    } else if us.uid == 0 {
        "record a copy without these bits".into()
    } else {
        "record a copy without them, or record as root".into()
    };
    let reason = format!("it {gain}, and the loader ignores LD_PRELOAD in such programs");
    Err(refused(ErrorKind::Privileged, path, reason, advice))
}

/// The reason why a file with a set-id bit raises privileges. `None`: the file raises no privileges, because
/// its owner and its group are already those of this user.
fn gained_id(mode: u32, owner: u32, group: u32, us: Identity) -> Option<&'static str> {
    if mode & libc::S_ISUID != 0 && owner != us.uid {
        return Some("is setuid");
    }
    // If S_ISGID is set but the execute bit of the group is not set, the file raises no privileges. In old
    // kernels, S_ISGID without the execute bit of the group meant mandatory locking.
    (mode & libc::S_ISGID != 0 && mode & libc::S_IXGRP != 0 && group != us.gid).then_some("is setgid")
}

fn c_path(path: &Path) -> Option<CString> {
    CString::new(path.as_os_str().as_bytes()).ok()
}

/// Whether this user may execute a file. One system call (faccessat2) checks the mode bits, the access lists
/// and the mount option `noexec`, with the rights of the effective user and group, as exec does.
fn may_execute(path: &Path) -> bool {
    let Some(path) = c_path(path) else { return false };
    // SAFETY: `path` is a string that ends in NUL and outlives the call.
    let result = unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) };
    if result != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EPERM) {
        // A seccomp profile from before 2020 does not know the system call faccessat2 and forbids it. If a
        // profile forbids faccessat2, use the older call `access`, which checks the rights of the real user
        // and group. SAFETY: `path` is a string that ends in NUL and outlives the call.
        return unsafe { libc::access(path.as_ptr(), libc::X_OK) } == 0;
    }
    result == 0
}

/// Whether the file raises privileges through file capabilities.
fn has_capabilities(path: &Path) -> bool {
    // If the buffer is empty, getxattr returns only the length of the attribute, and a length above 0 means
    // that the file has capabilities.
    rustix::fs::getxattr(path, "security.capability", &mut [0u8; 0]).is_ok_and(|length| length > 0)
}

/// Whether the file system ignores set-id bits and capabilities.
fn is_nosuid(path: &Path) -> bool {
    let Some(path) = c_path(path) else { return false };
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `path` ends in NUL, and `stat` has room for the structure that the call writes.
    let result = unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) };
    // SAFETY: a `statvfs` of only zeros is valid, and the call wrote at most a `statvfs` into `stat`.
    let stat = unsafe { stat.assume_init() };
    result == 0 && stat.f_flag & libc::ST_NOSUID != 0
}

/// Whether this process, and every process that this process starts, is unable to gain privileges.
fn has_no_new_privileges() -> bool {
    // SAFETY: with the option PR_GET_NO_NEW_PRIVS, prctl only reads a flag of the process.
    let flag = unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) };
    flag == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    #[test]
    fn only_ids_that_change_count_as_gained() {
        let us = Identity { uid: 1000, gid: 100 };
        assert_eq!(gained_id(0o4755, 0, 0, us), Some("is setuid"));
        assert_eq!(gained_id(0o4755, 1000, 0, us), None);
        assert_eq!(gained_id(0o2755, 0, 42, us), Some("is setgid"));
        assert_eq!(gained_id(0o2745, 0, 42, us), None, "mandatory locking");
        assert_eq!(gained_id(0o2755, 0, 100, us), None);
        assert_eq!(gained_id(0o755, 0, 0, us), None);
        assert_eq!(gained_id(0o6755, 0, 0, Identity { uid: 0, gid: 0 }), None);
    }

    #[test]
    fn env_lines_lead_to_the_program_that_env_finds() {
        let path = Some(OsStr::new("/nowhere:/bin:/usr/bin"));
        let line = |text: &str| interpreter_of(Path::new("script"), text.as_bytes(), path);
        let file_name = |found: Result<PathBuf, Error>| {
            found
                .map(|path| path.file_name().map(OsString::from).unwrap_or_default())
                .map_err(|error| error.kind())
        };
        assert_eq!(line("#!/bin/sh\necho"), Ok("/bin/sh".into()));
        assert_eq!(line("#! /bin/sh -e\n"), Ok("/bin/sh".into()));
        assert_eq!(file_name(line("#!/usr/bin/env sh")), Ok("sh".into()));
        assert_eq!(file_name(line("#!/usr/bin/env -S A=1 -u B sh -e\n")), Ok("sh".into()));
        assert_eq!(file_name(line("#!/usr/bin/env -S -i sh\n")), Err(ErrorKind::CleanEnvironment));
        assert_eq!(
            file_name(line("#!/usr/bin/env sh -e\n")),
            Err(ErrorKind::Missing),
            "one word for the kernel"
        );
        assert_eq!(file_name(line("#!/usr/bin/env -S\n")), Err(ErrorKind::NotAProgram));
        assert_eq!(file_name(line("#!\n")), Err(ErrorKind::NotAProgram));
        assert_eq!(file_name(line("#!/nowhere/sh\n")), Err(ErrorKind::Missing));
    }
}
