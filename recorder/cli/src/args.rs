//! The command line of edleak-record.

use clap::Parser;
use edleak_collector::recording::Domains;
use edleak_collector::recording::period::Period;
use edleak_collector::start::detached;
use edleak_collector::{Error, ErrorKind};
use edleak_format::MIN_CAPACITY_BYTES;
use edleak_text::units;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Counts the live bytes of every allocation site of a program, over time, into a small trace.
///
/// The program runs unchanged, as it would without edleak, and its exit code becomes edleak-record's. Read
/// the trace with edleak-analyze: on this or any other machine, now or later.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "edleak-record",
    version,
    max_term_width = 80,
    override_usage = "edleak-record [OPTIONS] [--] PROGRAM [ARGUMENT]...
       edleak-record [OPTIONS] --pid PID
       edleak-record --idle [--] PROGRAM [ARGUMENT]...
       edleak-record sessions
       edleak-record top [--session PID] [--once]
       edleak-record watch|unwatch [--session PID] SPEC...
       edleak-record mark [--session PID] NAME
       edleak-record doctor [PROGRAM]
       edleak-record unpack DIR",
    after_help = "Examples:
  edleak-record ./server --port 8080        record until the server ends
  edleak-record -o run.edl --duration 1h -- ./server
                                            end the recording after an hour; the server runs on
  edleak-record --report ./server           print the leaks and their stacks at the end
  edleak-record --only 'server*' ./start.sh record the server, not the script or other programs
  edleak-record --idle ./server             start the server ready to be recorded, at almost no cost
  edleak-record --pid 4711 --duration 1h    record a running process; the process runs on
  edleak-record sessions                    list the running recordings
  edleak-record top                         show a recording: sites, curves, verdicts so far
  edleak-record watch --session PID 'parse_*'
                                            in a running recording, record full stacks of these
                                            functions (unwatch: no longer)
  edleak-record mark --session PID deployed
                                            name this instant in the trace
  LD_PRELOAD=/path/to/libedleak_preload.so ./server
                                            the same without edleak-record; EDLEAK_OUTPUT, EDLEAK_PERIOD,
                                            EDLEAK_SIZE, EDLEAK_AUTO_WATCH, EDLEAK_ALLOCATOR,
                                            EDLEAK_DOMAINS and EDLEAK_ONLY stand for the options

EDLEAK_PRELOAD names the library to load, EDLEAK_CACHE_DIR the directory for compiled rules, and EDLEAK_RECORD
the recorder that a bare LD_PRELOAD starts. docs/environment.md explains all variables.

Exit code: the program's own (128+N if signal N killed it); 125 edleak-record failed, 126 the program cannot
be recorded, 127 there is no such program. To record a program called watch, write ./watch."
)]
pub(crate) struct Args {
    /// Write the trace to FILE; an existing FILE is kept as FILE.old.
    #[arg(short, long, value_name = "FILE", default_value = "trace.edl")]
    pub(crate) output: PathBuf,

    /// Take a slice every DUR: 100ms, 1s, 5m (a bare number is seconds), or auto.
    ///
    /// With auto, the period begins at 20 ms and doubles as the recording grows. So a run of any length ends
    /// with several hundred evenly spaced slices.
    #[arg(long, value_name = "DUR", default_value = "auto")]
    pub(crate) period: Period,

    /// End the recording after DUR; the program runs on.
    #[arg(long, value_name = "DUR", value_parser = parse_limit)]
    pub(crate) duration: Option<Duration>,

    /// After --duration, send the program SIGTERM and wait for its end; the exit code is 0.
    #[arg(long, requires = "duration")]
    pub(crate) then_terminate: bool,

    /// Record the process PID, which runs already; Ctrl-C or --duration ends the recording, and the process
    /// runs on.
    ///
    /// If the process was not started with edleak's library (--idle), edleak-record loads the library into
    /// it. Allocations from before the recording are unknown. The same process can be recorded any number of
    /// times.
    #[arg(long, value_name = "PID", conflicts_with_all = ["program", "only", "then_terminate"])]
    pub(crate) pid: Option<u32>,

    /// With --pid, wait at most DUR (default: 5s) until the library is loaded into the process and malloc
    /// leads to it.
    ///
    /// edleak-record loads the library on a thread that waits in the kernel, outside malloc and the loader.
    /// Then it stops all threads for a moment.
    // `requires = "pid"` would have no effect here: clap ignores it if an argument that conflicts with `pid`
    // is given, such as the program. So `Args::without_pid` finds the options that need `--pid`.
    #[arg(long, value_name = "DUR", value_parser = units::parse_duration)]
    pub(crate) attach_timeout: Option<Duration>,

    /// With --pid, copy the library into DIR of a process that has other files, such as a container.
    #[arg(long, value_name = "DIR")]
    pub(crate) copy_into: Option<PathBuf>,

    /// For tests: edleak-record kills itself at this step of an attach.
    #[arg(long, hide = true)]
    pub(crate) die_at: Option<String>,

    /// Start PROGRAM ready to be recorded later by --pid. Until then nothing is counted, and calls are only
    /// forwarded.
    ///
    /// edleak-record executes the program in its own place. EDLEAK_IDLE=1 with LD_PRELOAD has the same
    /// effect.
    #[arg(long, conflicts_with_all = [
        "output", "period", "duration", "then_terminate", "pid", "attach_timeout", "copy_into", "die_at",
        "children", "only", "size", "domains", "wrapper", "no_wrappers", "allocator", "watch", "watch_from",
        "no_watch", "watch_budget", "auto_watch", "report", "embed_symbols", "metrics", "metrics_top",
        "inject_leak",
    ])]
    pub(crate) idle: bool,

    /// Record child processes, too, each into its own trace NAME.PID.edl.
    #[arg(long)]
    pub(crate) children: bool,

    /// Record only programs whose file name matches PATTERN (`*` and `?`), in the whole process tree;
    /// repeatable.
    ///
    /// A pattern with a slash is compared with the whole path. The first process that matches is recorded
    /// into the trace, each further one into its own NAME.PID.edl. A process that does not match is not
    /// recorded; each of its calls costs one forwarded call. EDLEAK_ONLY (patterns separated by colons) has
    /// the same effect, also with a bare LD_PRELOAD.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) only: Vec<String>,

    /// Let the trace grow to BYTES (64M and 64MiB are the same, 64MB is 64,000,000); a full trace makes older
    /// history coarser.
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = parse_capacity)]
    pub(crate) size: u64,

    /// Record these domains of memory: heap, mapping (mmap, mremap, shmat), pool (the pools of edleak.h), or
    /// all; separated by commas.
    ///
    /// The heap is always recorded. With `heap` alone, edleak does not look at calls of mmap and at pools.
    #[arg(long, value_name = "LIST", default_value = "all")]
    pub(crate) domains: Domains,

    /// Also step over functions that match PATTERN (`*` and `?`), so that their callers become the sites;
    /// repeatable.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) wrapper: Vec<String>,

    /// Step over only the functions that --wrapper names; every other caller of malloc and its relatives is a
    /// site.
    #[arg(long)]
    pub(crate) no_wrappers: bool,

    /// Also count an allocator inside a module whose function names begin with PREFIX, as `my_*`; repeatable.
    ///
    /// The allocators that edleak knows (malloc in the program itself, je_, _rjem_, mi_, tc_, rpmalloc, sn_
    /// and others) need no option.
    #[arg(long, value_name = "PREFIX*")]
    pub(crate) allocator: Vec<String>,

    /// Record full stacks at these sites; repeatable.
    ///
    /// SPEC is a pattern on function names (`*` watches everything), a return address as `module!offset`, or
    /// a site of an earlier trace as `old.edl#7`.
    #[arg(long, value_name = "SPEC")]
    pub(crate) watch: Vec<String>,

    /// Record full stacks of every leak in an earlier trace; repeatable.
    #[arg(long, value_name = "OLD.edl")]
    pub(crate) watch_from: Vec<PathBuf>,

    /// Do not record full stacks of sites that look like leaks; --watch and --watch-from still apply.
    #[arg(long)]
    pub(crate) no_watch: bool,

    /// Let the stacks of sites that look like leaks cost the program at most PERCENT of its processor time.
    ///
    /// edleak-record estimates the cost from the allocations and the depth of the stacks. A site that costs
    /// too much is watched until its stacks are known, and then no longer.
    #[arg(
        long,
        value_name = "PERCENT",
        default_value = "2",
        value_parser = parse_budget,
        conflicts_with = "no_watch"
    )]
    pub(crate) watch_budget: f64,

    /// Accepted for older command lines: edleak-record watches by itself.
    #[arg(long, hide = true, conflicts_with = "no_watch")]
    pub(crate) auto_watch: bool,

    /// At the end, print edleak-analyze's report of the trace to stderr.
    #[arg(long)]
    pub(crate) report: bool,

    /// At the end, store functions, files and lines in the trace, so that it can be read without the
    /// binaries.
    #[arg(long)]
    pub(crate) embed_symbols: bool,

    /// Keep metrics in FILE for Prometheus and others that read OpenMetrics: live bytes, leaks so far,
    /// losses.
    ///
    /// The file is replaced every 5 seconds and once more at the end. If a process executes another program,
    /// the file has the figures since the exec.
    #[arg(long, value_name = "FILE")]
    pub(crate) metrics: Option<PathBuf>,

    /// List at most N sites of each process in the metrics: leaks first, then by growth.
    #[arg(long, value_name = "N", default_value_t = 20, requires = "metrics")]
    pub(crate) metrics_top: usize,

    /// Add a leak of RATE (10KB/s, 1MB/min) to the counters, named `edleak_injected_leak`, to see that a gate
    /// can fail.
    ///
    /// The program itself does not leak through this.
    #[arg(long, value_name = "RATE", value_parser = parse_leak)]
    pub(crate) inject_leak: Option<f64>,

    /// Print only errors.
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// The program and its arguments.
    #[arg(
        trailing_var_arg = true,
        required_unless_present = "pid",
        value_name = "PROGRAM",
        allow_hyphen_values = true
    )]
    pub(crate) program: Vec<OsString>,
}

impl Args {
    /// The first given option that has an effect only with `--pid`, if `--pid` is not given.
    pub(crate) fn without_pid(&self) -> Option<&'static str> {
        let given = [
            ("--attach-timeout", self.attach_timeout.is_some()),
            ("--copy-into", self.copy_into.is_some()),
            ("--die-at", self.die_at.is_some()),
        ];
        let missed = given.into_iter().find(|(_, is_given)| *is_given && self.pid.is_none());
        missed.map(|(option, _)| option)
    }
}

/// `watch` and `unwatch` for a running recording.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "edleak-record watch",
    bin_name = "edleak-record watch",
    max_term_width = 80,
    about = "Records full stacks at these sites of a running recording from now on (unwatch: no longer).",
    after_help = "Examples:
  edleak-record sessions                        the running recordings
  edleak-record watch --session 4711 'parse_*'  full stacks of every function whose name begins with parse_
  edleak-record unwatch --session 4711 '*'      no stacks any more, for any request"
)]
pub(crate) struct WatchArgs {
    /// The recorded process; not needed if only one is recorded.
    #[arg(short, long, value_name = "PID")]
    pub(crate) session: Option<u32>,

    /// A pattern on function names (`*` means all), a return address as `module!offset`, or a site of an
    /// earlier trace as `old.edl#7`.
    #[arg(required = true, value_name = "SPEC")]
    pub(crate) specs: Vec<String>,
}

/// `mark`: marks this instant of a running recording with a name.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "edleak-record mark",
    bin_name = "edleak-record mark",
    max_term_width = 80,
    about = "Names this instant in the trace of a running recording.",
    after_help = "Examples:
  edleak-record mark deployed                   the only recording that runs
  edleak-record mark --session 4711 request     the one of process 4711
  edleak-analyze --per-mark request trace.edl   what each request left behind

A program sets marks itself with edleak_mark(\"NAME\") of edleak.h, which
`edleak-record unpack DIR` writes; those are exact to the allocation."
)]
pub(crate) struct MarkArgs {
    /// The process ID of the recording; not necessary if only one recording runs.
    #[arg(short, long, value_name = "PID")]
    pub(crate) session: Option<u32>,

    /// The name of the mark; only the first 96 bytes count.
    #[arg(value_name = "NAME")]
    pub(crate) name: OsString,
}

/// `unpack`: copies edleak-record and its library, for a container image or a volume.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "edleak-record unpack",
    bin_name = "edleak-record unpack",
    max_term_width = 80,
    about = "Writes edleak-record, libedleak_preload.so, edleak.h and two further headers into DIR: all that \
             a target needs.",
    after_help = "Examples:
  edleak-record unpack /shared/edleak           into a volume that a container mounts
  LD_PRELOAD=/shared/edleak/libedleak_preload.so ./server
                                                records the server; EDLEAK_OUTPUT names the trace"
)]
pub(crate) struct UnpackArgs {
    /// The directory; it is created if missing.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

/// `doctor`: checks whether anything on this machine prevents a recording.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "edleak-record doctor",
    bin_name = "edleak-record doctor",
    max_term_width = 80,
    about = "Checks whether this machine can record, and names a remedy for each problem.",
    after_help = "Examples:
  edleak-record doctor                          this machine, this user, this directory
  edleak-record doctor ./server                 and whether this program can be recorded

Exit code: 0 no problem, 1 a problem prevents a recording, 125 edleak-record failed."
)]
pub(crate) struct DoctorArgs {
    /// A program to check as well.
    #[arg(value_name = "PROGRAM")]
    pub(crate) program: Option<OsString>,
}

/// `top`: a live view of a running recording.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "edleak-record top",
    bin_name = "edleak-record top",
    max_term_width = 80,
    about = "Shows a running recording: its sites by growth, with curve, verdict so far and function.",
    after_help = "Keys: arrows select, Enter shows the stacks, w watches or unwatches the site,
/ filters, s sorts, p pauses, q leaves. The recording goes on.

Examples:
  edleak-record top                             the only recording that runs
  edleak-record top --session 4711              the one of process 4711
  edleak-record top --once --format json        the leaks so far, for a script"
)]
pub(crate) struct TopArgs {
    /// The recorded process; not needed if only one is recorded.
    #[arg(short, long, value_name = "PID")]
    pub(crate) session: Option<u32>,

    /// Print one screen and exit; this is also done if the output is not a terminal.
    #[arg(long)]
    pub(crate) once: bool,

    /// The output format; JSON is printed once.
    #[arg(long, value_enum, default_value_t = TopFormat::Text)]
    pub(crate) format: TopFormat,

    /// The order of the sites at the start.
    #[arg(long, value_enum, default_value_t = SortArg::Growth)]
    pub(crate) sort: SortArg,
}

/// The output format of `top`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum TopFormat {
    /// For a person.
    Text,
    /// For a program.
    Json,
}

/// The order of the sites in `top`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum SortArg {
    /// Leaks first, then by growth of live bytes since the start.
    Growth,
    /// By live bytes.
    Live,
    /// By number of allocations.
    Allocs,
}

/// `sessions`: lists the running recordings.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "edleak-record sessions",
    bin_name = "edleak-record sessions",
    about = "Lists your running recordings: process, time, slices, sites, watched stacks, trace."
)]
pub(crate) struct SessionsArgs {}

/// The request of a preload in a process that no edleak-record started: `collect --pid N --reply-fd N`.
#[derive(Parser, Clone, Debug)]
#[command(name = "edleak-record collect")]
pub(crate) struct CollectArgs {
    /// The process that sends the request.
    #[arg(long)]
    pub(crate) pid: u32,
    /// The descriptor through which the process gets the path of its control page.
    #[arg(long)]
    pub(crate) reply_fd: i32,
}

impl CollectArgs {
    /// The request that the preload library passed as arguments.
    pub(crate) fn request(&self) -> detached::Request {
        detached::Request { pid: self.pid, reply_fd: self.reply_fd }
    }
}

/// Reads the duration of a recording, which must be greater than 0.
fn parse_limit(text: &str) -> Result<Duration, Error> {
    match units::parse_duration(text)? {
        Duration::ZERO => Err(Error::new(ErrorKind::Value, "a recording of this duration records nothing")
            .with_remedy("use a duration greater than 0")),
        duration => Ok(duration),
    }
}

/// Reads the maximum size of a trace.
fn parse_capacity(text: &str) -> Result<u64, Error> {
    match units::parse_size(text)? {
        bytes if bytes < MIN_CAPACITY_BYTES => {
            let remedy = format!("use at least {}k", MIN_CAPACITY_BYTES >> 10);
            Err(Error::new(ErrorKind::Value, "too small for a trace").with_remedy(remedy))
        }
        bytes => Ok(bytes),
    }
}

/// Reads a share in percent, with or without `%`.
fn parse_budget(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    match number {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err(format!("`{text}` is no share (use a percentage such as 2 or 0.5)")),
    }
}

/// Reads a rate in bytes per second, in the form of edleak-analyze's `--budget`. A rate of 0 is an error,
/// because it could not show that a gate fails.
fn parse_leak(text: &str) -> Result<f64, Error> {
    match units::parse_rate(text)? {
        rate if rate > 0.0 => Ok(rate),
        _ => {
            Err(Error::new(ErrorKind::Value, "a rate of 0 adds no leak")
                .with_remedy("use for example 10KB/s"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
        CollectArgs::command().debug_assert();
        WatchArgs::command().debug_assert();
        MarkArgs::command().debug_assert();
        SessionsArgs::command().debug_assert();
        TopArgs::command().debug_assert();
        UnpackArgs::command().debug_assert();
        DoctorArgs::command().debug_assert();
    }

    #[test]
    fn words_after_the_program_belong_to_it() {
        let args = Args::try_parse_from(["edleak-record", "--period", "1s", "./x", "--period", "-o"])
            .expect("valid");
        assert_eq!(args.program, ["./x", "--period", "-o"]);
        let args = Args::try_parse_from(["edleak-record", "-o", "t", "--", "-x", "--help"]).expect("valid");
        assert_eq!(args.program, ["-x", "--help"]);
    }

    #[test]
    fn option_without_effect_is_refused() {
        for line in [
            &["--metrics-top", "5", "./x"][..],
            &["--then-terminate", "./x"],
            &["--no-watch", "--watch-budget", "5", "./x"],
            &["--pid", "7", "--only", "x"],
            &["--pid", "7", "./x"],
        ] {
            let parsed = Args::try_parse_from([&["edleak-record"], line].concat());
            assert!(parsed.is_err_and(|error| error.use_stderr()), "{line:?}");
        }
        for (option, value) in [("--copy-into", "/tmp"), ("--attach-timeout", "1s"), ("--die-at", "load")] {
            let missed = |more: &[&str]| {
                let line = [&["edleak-record", option, value], more].concat();
                Args::try_parse_from(line).expect("valid").without_pid()
            };
            assert_eq!(missed(&["./x"]), Some(option));
            assert_eq!(missed(&["--only", "x", "./x"]), Some(option));
            assert_eq!(missed(&["--pid", "7"]), None);
        }
    }

    /// `--idle` only starts the program, and a later `--pid` records it. So every option of a recording
    /// conflicts with `--idle`.
    #[test]
    fn idle_refuses_every_option_of_a_recording() {
        let command = Args::command();
        let is_idle = |option: &&clap::Arg| option.get_id() == "idle";
        let idle = command.get_arguments().find(is_idle).expect("it is an option");
        let refused: Vec<_> =
            command.get_arg_conflicts_with(idle).into_iter().map(|option| option.get_id().as_str()).collect();
        for option in command.get_arguments().map(|option| option.get_id().as_str()) {
            let is_allowed = ["idle", "quiet", "program"].contains(&option);
            assert_eq!(refused.contains(&option), !is_allowed, "{option}");
        }
    }

    #[test]
    fn a_watch_budget_is_a_percentage() {
        assert_eq!(parse_budget("2"), Ok(0.02));
        assert_eq!(parse_budget("0.5%"), Ok(0.005));
        for text in ["", "-1", "101", "two", "nan"] {
            assert!(parse_budget(text).is_err_and(|message| message.ends_with(')')), "{text}");
        }
    }

    #[test]
    fn size_below_the_minimum_is_refused() {
        assert_eq!(parse_capacity("256k"), Ok(256 << 10));
        for text in ["0", "0k", "1", "255k", "1e3"] {
            assert!(parse_capacity(text).is_err_and(|error| error.remedy().is_some()), "{text}");
        }
    }

    #[test]
    fn duration_of_zero_is_refused() {
        assert_eq!(parse_limit("1ms"), Ok(Duration::from_millis(1)));
        for text in ["0", "0s", "0.0h", "-1"] {
            assert!(parse_limit(text).is_err_and(|error| error.remedy().is_some()), "{text}");
        }
    }

    #[test]
    fn a_leak_to_inject_is_a_rate() {
        assert_eq!(parse_leak("10KB/s"), Ok(10_000.0));
        assert_eq!(parse_leak("6 MiB/min"), Ok(104_857.6));
        for text in ["", "10KB", "0B/s", "-1B/s", "10KB/fortnight"] {
            assert!(parse_leak(text).is_err_and(|error| error.remedy().is_some()), "{text}");
        }
    }
}
