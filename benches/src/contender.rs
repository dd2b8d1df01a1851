//! A contender is one way to run a program: without any tool, with a preload that only forwards calls, with
//! edleak, or with another installed tool (a peer).

use crate::tools::{self, Tools};
use anyhow::Result;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One way to run a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Contender {
    /// The program runs without any tool.
    Untraced,
    /// The program runs with a preload that only forwards calls. Every preload costs at least as much as this
    /// forward-only preload.
    Forward,
    /// The program runs under edleak-record.
    Edleak,
    /// The program runs with edleak's library preloaded and idle: the library only forwards calls, and no
    /// recording begins.
    EdleakIdle,
    /// The program runs under edleak-record, which records the stack of every allocation.
    EdleakWatchAll,
    /// The program runs under edleak-record, which also records child processes.
    EdleakChildren,
    /// The program runs under heaptrack.
    Heaptrack,
    /// The program runs with jemalloc in place of malloc. The cost of jemalloc's profiler is compared with
    /// the cost of jemalloc without the profiler.
    Jemalloc,
    /// The program runs with jemalloc and its sampling profiler.
    JemallocProfiling,
    /// The program runs with tcmalloc in place of malloc.
    Tcmalloc,
    /// The program runs with tcmalloc's heap profiler.
    Gperftools,
    /// The program runs under valgrind's dhat.
    Dhat,
    /// The program, a Python interpreter, runs memray, a profiler for the memory of Python programs.
    Memray,
}

impl Contender {
    /// The name of the contender in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Contender::Untraced => "untraced",
            Contender::Forward => "forward-only",
            Contender::Edleak => "edleak",
            Contender::EdleakIdle => "edleak --idle",
            Contender::EdleakWatchAll => "edleak --watch '*'",
            Contender::EdleakChildren => "edleak --children",
            Contender::Heaptrack => "heaptrack",
            Contender::Jemalloc => "jemalloc",
            Contender::JemallocProfiling => "jemalloc prof",
            Contender::Tcmalloc => "tcmalloc",
            Contender::Gperftools => "gperftools",
            Contender::Dhat => "dhat",
            Contender::Memray => "memray",
        }
    }

    /// The contender with whose cost the cost of this contender is compared.
    pub(crate) fn baseline(self) -> Contender {
        match self {
            Contender::JemallocProfiling => Contender::Jemalloc,
            Contender::Gperftools => Contender::Tcmalloc,
            _ => Contender::Untraced,
        }
    }

    /// The factor by which the work of this contender is divided. A slow contender has a factor above 1, so
    /// that its run ends in reasonable time.
    pub(crate) fn slower(self) -> u64 {
        match self {
            Contender::Heaptrack | Contender::Gperftools | Contender::EdleakWatchAll => 10,
            Contender::Dhat => 30,
            _ => 1,
        }
    }
}

/// The tools with which edleak is compared; a tool that is not installed is left out.
pub(crate) const PEERS: [Contender; 4] =
    [Contender::Heaptrack, Contender::JemallocProfiling, Contender::Gperftools, Contender::Dhat];

/// The commands that start each contender on this machine.
///
/// For each round, the bench makes new copies of the two preload libraries (forward-only and edleak). If the
/// program allocates through wrapper functions, some copies of the same preload are slower than other copies,
/// by up to ten nanoseconds per pair. The speed of a copy depends on the physical pages of the file, which
/// stay the same while the file is cached. Because each round uses new copies, the median over the rounds
/// does not depend on the speed of one copy, neither for the forward-only preload nor for edleak.
pub(crate) struct Starter {
    record: PathBuf,
    preload: Preload,
    forward: Preload,
    heaptrack: Option<PathBuf>,
    jemalloc: Option<PathBuf>,
    tcmalloc: Option<PathBuf>,
    valgrind: Option<PathBuf>,
    dir: PathBuf,
}

/// A preload library, and the copy of this library that a measured program loads.
struct Preload {
    original: PathBuf,
    copy: PathBuf,
}

impl Preload {
    fn fresh(&self) -> &Path {
        let new = self.copy.with_extension("new");
        std::fs::copy(&self.original, &new)
            .and_then(|_| std::fs::rename(&new, &self.copy))
            .unwrap_or_else(|error| panic!("cannot copy `{}`: {error}", self.original.display()));
        &self.copy
    }
}

impl Starter {
    /// Finds the other installed tools, and builds the forward-only preload in the directory `dir`. The
    /// contenders also write their output to `dir`.
    pub(crate) fn new(tools: &Tools, dir: &Path) -> Result<Starter> {
        let forward = Preload { original: dir.join("forward.so"), copy: dir.join("forward-copy.so") };
        tools::compile(&tools::source("forward.c"), &forward.original, &["-O2", "-shared", "-fPIC", "-ldl"])?;
        let record = dir.join("edleak-record");
        std::fs::copy(&tools.record, &record)?;
        const LIBRARY: &str = "libedleak_preload.so";
        let preload =
            Preload { original: tools.record.with_file_name(LIBRARY), copy: record.with_file_name(LIBRARY) };
        Ok(Starter {
            record,
            preload,
            forward,
            heaptrack: tools::installed("heaptrack"),
            jemalloc: tools::library("libjemalloc.so.2"),
            tcmalloc: tools::library("libtcmalloc.so.4"),
            valgrind: tools::installed("valgrind"),
            dir: dir.to_path_buf(),
        })
    }

    /// Whether the tool of a contender is installed.
    pub(crate) fn has(&self, contender: Contender) -> bool {
        self.command(contender, "true").is_some()
    }

    /// The names of the tools in `PEERS` that are not installed.
    pub(crate) fn absent(&self) -> Vec<&'static str> {
        PEERS.into_iter().filter(|&peer| !self.has(peer)).map(Contender::name).collect()
    }

    /// The path of the trace of edleak-record's last run.
    pub(crate) fn trace(&self) -> PathBuf {
        self.dir.join("bench.edl")
    }

    /// A command that attaches to a running process and records it.
    pub(crate) fn attach(&self, pid: u32) -> Command {
        self.preload.fresh();
        let mut command = Command::new(&self.record);
        command.arg("-o").arg(self.trace()).args(["--pid", &pid.to_string()]);
        command
    }

    /// A command that starts `program` under a contender. The caller of this function adds the program's
    /// arguments and environment variables to the command.
    pub(crate) fn command(&self, contender: Contender, program: impl AsRef<OsStr>) -> Option<Command> {
        let preload = |library: &Path| {
            let mut command = Command::new(program.as_ref());
            command.env("LD_PRELOAD", library);
            command
        };
        let under = |tool: &Path, arguments: &[&OsStr]| {
            let mut command = Command::new(tool);
            command.args(arguments).arg(program.as_ref());
            command
        };
        let trace = self.trace();
        let recorder = || {
            self.preload.fresh();
            &self.record
        };
        let record = [OsStr::new("-q"), OsStr::new("-o"), trace.as_os_str()];
        Some(match contender {
            Contender::Untraced => Command::new(program.as_ref()),
            Contender::Forward => preload(self.forward.fresh()),
            Contender::Edleak => under(recorder(), &record),
            Contender::EdleakIdle => under(recorder(), &[OsStr::new("--idle")]),
            Contender::EdleakWatchAll => {
                let watch = [OsStr::new("--watch"), OsStr::new("*")];
                under(recorder(), &[&record[..], &watch[..]].concat())
            }
            Contender::EdleakChildren => {
                under(recorder(), &[&record[..], &[OsStr::new("--children")]].concat())
            }
            Contender::Heaptrack => {
                let data = self.dir.join("heaptrack");
                under(self.heaptrack.as_deref()?, &[OsStr::new("-o"), data.as_os_str()])
            }
            Contender::Jemalloc => preload(self.jemalloc.as_deref()?),
            Contender::JemallocProfiling => {
                let mut command = preload(self.jemalloc.as_deref()?);
                command.env("MALLOC_CONF", "prof:true,prof_final:false");
                command
            }
            Contender::Tcmalloc => preload(self.tcmalloc.as_deref()?),
            Contender::Gperftools => {
                let mut command = preload(self.tcmalloc.as_deref()?);
                command.env("HEAPPROFILE", self.dir.join("gperftools"));
                command
            }
            Contender::Dhat => {
                let data = self.dir.join("dhat.json");
                let mut file = std::ffi::OsString::from("--dhat-out-file=");
                file.push(&data);
                under(self.valgrind.as_deref()?, &[OsStr::new("--tool=dhat"), OsStr::new("-q"), &file])
            }
            Contender::Memray => {
                let mut command = Command::new(program.as_ref());
                command.args(["-m", "memray", "run", "--quiet", "--force", "-o"]);
                command.arg(self.dir.join("memray.bin"));
                command
            }
        })
    }
}
