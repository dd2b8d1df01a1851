//! The collector of a program that was started with LD_PRELOAD only, without edleak-record. The preload
//! library in the program starts this collector. The collector creates the session, replies to the process,
//! and continues in the background.
#![allow(unsafe_code)] // calls fork

use crate::detour::Prefixes;
use crate::error::{Error, ErrorKind};
use crate::follow::session_stock::{LONG_RULES_TIMEOUT, RULES_TIMEOUT, SessionStock};
use crate::follow::{Follower, Root, RunSettings, child_path};
use crate::recording::output::{self, Reserved};
use crate::recording::period::Period;
use crate::recording::{Domains, Options};
use crate::rules::code_options::CodeOptions;
use crate::rules::publisher::Publisher;
use crate::rules::wrappers::WrapperSet;
use crate::start::check;
use crate::start::proc_mount::check_proc;
use crate::sys::process;
use crate::sys::signals::{Signals, Watch};
use crate::watch::request::WatchSet;
use edleak_format::{MIN_CAPACITY_BYTES, TraceWriter};
use edleak_text::units;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::FromRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// The share of the target's processor time that auto-watch may use: 0.02 means 2 %.
const WATCH_SHARE: f64 = 0.02;

/// The request for a collector, which the preload library sends from a process that was started without
/// edleak-record.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The process that sends the request.
    pub pid: u32,
    /// The descriptor through which the process gets the path of its control page.
    pub reply_fd: i32,
}

/// Makes this process a background process: the collector of the process that requested a collector. The
/// function writes errors to the system log: if it wrote them to the terminal, the user would think that the
/// target wrote them.
pub fn collect(args: &Request) -> ExitCode {
    let Some(watch) = Watch::of(args.pid) else {
        if let Some(why) = Watch::unavailable() {
            log(&format!("process {} is not recorded: {why}", args.pid));
        }
        return ExitCode::FAILURE;
    };
    if let Err(why) = check_proc() {
        log(&format!("process {} is not recorded: {why}", args.pid));
        return ExitCode::FAILURE;
    }
    // SAFETY: the preload library opened this descriptor for this process, so no other code of this process
    // owns it.
    let mut reply = unsafe { File::from_raw_fd(args.reply_fd) };
    // The process that requested a collector waits until the parent of this fork ends. The child of this fork
    // becomes the collector. The child runs in its own terminal session, and keeps only the reply descriptor
    // and the descriptor that shows whether the target still runs. SAFETY: this process has only one thread.
    let child = unsafe { libc::fork() };
    if child != 0 {
        return if child > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    // SAFETY: `setsid` takes no arguments.
    unsafe { libc::setsid() };
    drop_inherited(&[args.reply_fd, watch.fd()]);
    let output = std::env::var_os("EDLEAK_OUTPUT").filter(|path| !path.is_empty());
    let output = output::followed(Path::new(&output.unwrap_or_else(|| "trace.edl".into())));
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            log(&format!("process {} is not recorded: {error}", args.pid));
            return ExitCode::FAILURE;
        }
    };
    let period = setting("EDLEAK_PERIOD", str::parse).unwrap_or(Period::Auto);
    let capacity_bytes = setting("EDLEAK_SIZE", |text| match units::parse_size(text)? {
        bytes if bytes < MIN_CAPACITY_BYTES => {
            let least = MIN_CAPACITY_BYTES >> 10;
            Err(Error::new(ErrorKind::Value, format!("it is less than {least}k")))
        }
        bytes => Ok(bytes),
    });
    let auto_watch = std::env::var("EDLEAK_AUTO_WATCH").map_or(true, |value| value != "0");
    let allocators = setting("EDLEAK_ALLOCATOR", |text| {
        let mut allocators = Prefixes::default();
        text.split(':').try_for_each(|prefix| allocators.add(prefix)).map(|()| allocators)
    });
    let allocators = allocators.unwrap_or_default();
    let code_options = CodeOptions {
        wrappers: WrapperSet::builtin(),
        allocators,
        watch: WatchSet::new(),
        walk_stacks: false,
    };
    let program = process::program(args.pid);
    let own_allocator = program.filter(|program| check::own_malloc_of(program).is_some());
    let has_allocator = own_allocator.is_some() || code_options.allocators != Prefixes::default();
    let waits_long = has_allocator || !code_options.watch.is_empty();
    let rules_timeout = if waits_long { LONG_RULES_TIMEOUT } else { RULES_TIMEOUT };
    let mut settings = RunSettings {
        options: Options {
            command: process::command_line(args.pid),
            period,
            capacity_bytes: capacity_bytes.unwrap_or(edleak_format::DEFAULT_CAPACITY_BYTES),
            inject_bytes_per_s: None,
            own_allocator: own_allocator.clone(),
            domains: setting("EDLEAK_DOMAINS", str::parse).unwrap_or(Domains::ALL),
            auto_watch: auto_watch.then_some(WATCH_SHARE),
        },
        output,
        duration: None,
        children: false,
        only: String::new(),
        publisher: Publisher::new(Arc::new(code_options)),
    };
    let refused = |what: &str, error: &io::Error| Error::system(what, error, "see `ulimit -a`");
    let made = Signals::block().map_err(|error| refused("signals cannot be passed on to the target", &error));
    let made = made.and_then(|signals| {
        let (path, writer, reserved) = reserve(&settings, args.pid)?;
        let stock = SessionStock::create(false, rules_timeout).map_err(|error| {
            reserved.give_back();
            refused("no memory to share with the target", &error)
        })?;
        Ok((signals, path, writer, reserved, stock))
    });
    let (mut signals, path, writer, reserved, stock) = match made {
        Ok(made) => made,
        Err(error) => {
            log(&format!("process {} is not recorded: {error}", args.pid));
            return ExitCode::FAILURE;
        }
    };
    settings.output = path;
    stock.set_domains(settings.options.domains.flags());
    stock.set_root(args.pid);
    if reply.write_all(stock.address().as_bytes()).is_err() {
        reserved.give_back();
        return ExitCode::FAILURE;
    }
    drop(reply);
    reserved.delete_earlier();
    let outcome =
        Follower::new(&settings, stock, Root::Other(args.pid, watch), Some(writer)).run(&mut signals);
    if outcome.summaries.is_empty() && outcome.failures.is_empty() {
        reserved.give_back();
    }
    outcome.failures.iter().for_each(|failure| log(&failure.error.to_string()));
    if outcome.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Reserves the name of a trace. Another recording that still runs may already use the name of the trace: the
/// recording of another process, or the recording of the program that this process ran before an exec. If the
/// name is in use, the name of the new trace contains the process ID.
fn reserve(settings: &RunSettings, pid: u32) -> Result<(PathBuf, TraceWriter, Reserved), Error> {
    const MOST: u32 = 100;
    let output = &settings.output;
    let numbered = |image| match image {
        0 => output.clone(),
        1 => child_path(output, pid),
        image => child_path(output, pid).with_extension(format!("{image}.edl")),
    };
    for candidate in (0..MOST).map(numbered) {
        match output::reserve(&candidate, settings.options.capacity_bytes) {
            Ok((writer, reserved)) => return Ok((candidate, writer, reserved)),
            Err(error) if error.kind() == ErrorKind::InUse => {}
            Err(error) => return Err(error),
        }
    }
    let message = format!("`{}` and all numbered names after it are in use", output.display());
    Err(Error::new(ErrorKind::InUse, message).with_remedy("set EDLEAK_OUTPUT to another"))
}

/// Reads a setting from an environment variable. If the value is invalid, the collector writes a message to
/// the system log and uses the default value.
fn setting<T>(name: &str, parse: impl Fn(&str) -> Result<T, Error>) -> Option<T> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    let parsed = parse(&text);
    if let Err(why) = &parsed {
        log(&format!("{name}={text} is not used: {why}"));
    }
    parsed.ok()
}

/// Writes a message to the system log. If no system log runs, the message is lost.
fn log(message: &str) {
    let Ok(line) = CString::new(format!("edleak-record: {message}")) else { return };
    // SAFETY: the format `%s` takes one string, and the call passes one NUL-terminated string.
    unsafe { libc::syslog(libc::LOG_USER | libc::LOG_WARNING, c"%s".as_ptr(), line.as_ptr()) };
}

/// Closes every descriptor except `kept`, and opens /dev/null as stdin, stdout and stderr. If the collector
/// kept pipes of the target open, a program that reads such a pipe to its end would wait until the collector
/// ends.
fn drop_inherited(kept: &[i32]) {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .map(|entries| {
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
        })
        .unwrap_or_default();
    for fd in open.into_iter().filter(|fd| !kept.contains(fd)) {
        // SAFETY: no code of this process uses the descriptors that are not in `kept`.
        unsafe { libc::close(fd) };
    }
    // SAFETY: the path that the call passes is NUL-terminated.
    while (0..3).contains(&unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) }) {}
}
