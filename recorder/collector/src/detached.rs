//! Started by a bare LD_PRELOAD: makes the session, answers, and goes on by itself.
#![allow(unsafe_code)] // fork

use crate::args::{CollectArgs, parse_size};
use crate::follow::{Follower, Plan, Root};
use crate::guide::{Guide, Wishes};
use crate::offer::Offer;
use crate::period::Period;
use crate::process;
use crate::recording::Options;
use crate::run;
use crate::signals::{Signals, Watch};
use crate::watch::WatchSet;
use crate::wrappers::WrapperSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Becomes the collector of the process that asks, in the background. What cannot be done is said nowhere: whatever this
/// process printed would look like the target's.
pub fn collect(args: &CollectArgs) -> ExitCode {
    let Some(watch) = Watch::of(args.pid) else { return ExitCode::FAILURE };
    // SAFETY: the preload made this descriptor for us.
    let mut reply = unsafe { File::from_raw_fd(args.reply_fd) };
    // The one who asks waits for us to end; the one who stays is our child, in a session of its own, holding none of
    // the descriptors it was born with but the reply.
    // SAFETY: this process has one thread.
    let child = unsafe { libc::fork() };
    if child != 0 {
        return if child > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    // SAFETY: no arguments.
    unsafe { libc::setsid() };
    drop_inherited(&[args.reply_fd, watch.fd()]);
    let variable = |name| std::env::var(name).ok();
    let output = std::env::var_os("EDLEAK_OUTPUT").map_or_else(|| PathBuf::from("trace.edl"), PathBuf::from);
    let period = variable("EDLEAK_PERIOD").and_then(|text| text.parse().ok()).unwrap_or(Period::Auto);
    let capacity_bytes = variable("EDLEAK_SIZE").and_then(|text| parse_size(&text).ok());
    let auto_watch = variable("EDLEAK_AUTO_WATCH").is_some_and(|value| value != "0");
    let wishes = Wishes { wrappers: WrapperSet::builtin(), watch: WatchSet::new(), walks: auto_watch };
    let plan = Plan {
        options: Options {
            command: process::command_line(args.pid),
            period,
            capacity_bytes: capacity_bytes.unwrap_or(edleak_format::DEFAULT_CAPACITY_BYTES),
            inject_bytes_per_s: None,
            auto_watch,
        },
        output,
        duration: None,
        children: false,
        guide: Guide::new(Arc::new(wishes)),
    };
    let ready = run::keep_old(&plan.output).ok().and_then(|_| Offer::create(false).ok());
    let (Some(offer), Ok(mut signals)) = (ready, Signals::block()) else { return ExitCode::FAILURE };
    offer.set_root(args.pid);
    if reply.write_all(offer.path().as_bytes()).is_err() {
        return ExitCode::FAILURE;
    }
    drop(reply);
    let outcome = Follower::new(&plan, offer, Root::Other(args.pid, watch)).run(&mut signals);
    if outcome.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Closes every descriptor but these, and points the standard ones nowhere: a pipe that the target's parent reads to its
/// end must not be held open by us.
fn drop_inherited(kept: &[i32]) {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .map(|entries| {
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
        })
        .unwrap_or_default();
    for fd in open.into_iter().filter(|fd| !kept.contains(fd)) {
        // SAFETY: nothing in this process uses the others.
        unsafe { libc::close(fd) };
    }
    // SAFETY: a NUL-terminated path.
    while (0..3).contains(&unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) }) {}
}
