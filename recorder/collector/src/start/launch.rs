//! Starts the target with the arguments, descriptors, signals and limits that the target would have without
//! edleak. The collector adds two variables to the target's environment, or three variables if the user has
//! chosen the programs to record with patterns.
#![allow(unsafe_code)] // calls fork and exec

use crate::sys::own_child::OwnChild;
use crate::sys::pipe::pipe;
use crate::sys::signals::Signals;
use crate::sys::stdio;
use crate::sys::terminal::Leadership;
use edleak_session::{ENV_IDLE, ENV_ONLY, ENV_SESSION};
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// The environment of a target that the collector starts: the collector's own environment, with the preload
/// library first in LD_PRELOAD and with a variable for the address of the control page. EDLEAK_IDLE is not
/// set, so the library in the target counts from the start.
fn environment(preload: &Path, control: &str, only: &str) -> Vec<CString> {
    let ours = [(ENV_SESSION, control), (ENV_ONLY, only), (ENV_IDLE, "")];
    environment_with(preload, &ours)
}

/// The environment of this process, with the preload library first in LD_PRELOAD and with the variables
/// `ours`. If a variable of `ours` has an empty value, the result does not contain this variable.
fn environment_with(preload: &Path, ours: &[(&str, &str)]) -> Vec<CString> {
    let mut preloads = preload.as_os_str().to_owned();
    if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        preloads.push(":");
        preloads.push(others);
    }
    let ours = ours.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let ours: Vec<_> = [(OsString::from("LD_PRELOAD"), preloads)].into_iter().chain(ours).collect();
    let kept = std::env::vars_os().filter(|(name, _)| ours.iter().all(|(ours, _)| ours != name));
    let set = ours.iter().filter(|(_, value)| !value.is_empty()).cloned();
    kept.chain(set)
        .filter_map(|(name, value)| {
            let mut variable = name.into_vec();
            variable.push(b'=');
            variable.extend(value.into_vec());
            CString::new(variable).ok()
        })
        .collect()
}

/// Executes a program in place of this process (exec). The library in the program counts nothing until a
/// recording begins. The function returns only if the exec fails.
pub(crate) fn execute_idle(
    program: &Path,
    arguments: &[OsString],
    preload: &Path,
    signals: &Signals,
) -> io::Error {
    let c_string = |text: &OsStr| CString::new(text.as_bytes()).map_err(io::Error::other);
    let path = match c_string(program.as_os_str()) {
        Ok(path) => path,
        Err(error) => return error,
    };
    let arguments = match arguments.iter().map(|argument| c_string(argument)).collect::<io::Result<Vec<_>>>()
    {
        Ok(arguments) => arguments,
        Err(error) => return error,
    };
    let environment = environment_with(preload, &[(ENV_IDLE, "1"), (ENV_SESSION, "")]);
    let (argv, envp) = (pointers(&arguments), pointers(&environment));
    signals.restore();
    stdio::restore();
    // SAFETY: `path` is a NUL-terminated string. The arrays `argv` and `envp` end in a null pointer. `path`,
    // `argv` and `envp` outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// A process that will become the target. The process exists, but waits for [`Held::release`] before it
/// executes the program.
pub(crate) struct Held {
    child: OwnChild,
    go: File,
    failure: File,
}

/// Forks a process for the program. The process executes the program only after [`Held::release`].
pub(crate) fn hold(
    program: &Path,
    arguments: &[OsString],
    preload: &Path,
    control: &str,
    only: &str,
    signals: &Signals,
) -> io::Result<Held> {
    let c_string = |text: &OsStr| CString::new(text.as_bytes()).map_err(io::Error::other);
    let path = c_string(program.as_os_str())?;
    let arguments = arguments.iter().map(|argument| c_string(argument)).collect::<io::Result<Vec<_>>>()?;
    let environment = environment(preload, control, only);
    let (argv, envp) = (pointers(&arguments), pointers(&environment));
    let (go_read, go) = pipe()?;
    let (failure, failure_write) = pipe()?;
    let leadership = Leadership::give_up();
    // SAFETY: this process has only one thread at this point. The child calls only async-signal-safe
    // functions before it executes the program or exits.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        // Close the child's copy of the write end of the pipe. If the collector is killed before it releases
        // the child, the child's read must end, so that the child exits. A read from a pipe does not end
        // while any process, even the child itself, has the write end open. SAFETY: no code of the child uses
        // this descriptor.
        unsafe { libc::close(go.as_raw_fd()) };
        let mut byte = 0u8;
        // SAFETY: the call reads one byte into a local variable.
        let released = unsafe { libc::read(go_read.as_raw_fd(), (&raw mut byte).cast(), 1) };
        if released == 1 {
            let is_hung_up = leadership.is_some_and(|leadership| !leadership.take_over());
            signals.restore();
            stdio::restore();
            if is_hung_up {
                // SAFETY: the call passes only a signal number and no memory.
                unsafe { libc::raise(libc::SIGHUP) };
            }
            // SAFETY: the call passes a NUL-terminated path and two null-terminated arrays, which the parent
            // made before the fork.
            unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
            let error = io::Error::last_os_error().raw_os_error().unwrap_or(libc::ENOEXEC).to_ne_bytes();
            // SAFETY: the call passes four bytes of a local variable.
            unsafe { libc::write(failure_write.as_raw_fd(), error.as_ptr().cast(), error.len()) };
        }
        // SAFETY: the call ends the process without running any exit handler of the parent.
        unsafe { libc::_exit(127) };
    }
    Ok(Held { child: OwnChild::new(pid as u32), go, failure })
}

impl Held {
    /// The process ID. The process ID stays the same when the process executes the program.
    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Ends the wait of the process, so that it executes the program. If `execve` fails, returns the error of
    /// `execve`.
    pub(crate) fn release(mut self) -> io::Result<OwnChild> {
        self.go.write_all(&[1])?;
        drop(self.go);
        let mut error = Vec::new();
        self.failure.read_to_end(&mut error)?; // a successful execve closes the write end
        match <[u8; 4]>::try_from(error.as_slice()) {
            Ok(code) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(code))),
            Err(_) => Ok(self.child),
        }
    }
}
