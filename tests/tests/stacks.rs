//! Tests watched stacks: the stacks must be correct, watching must lose no counts, and a running recording
//! must answer requests.

use edleak_tests::ledger::{assert_equal, read_ledger};
use edleak_tests::programs::{programs, samples, stacks};
use edleak_tests::record::{Recorder, Recording};
use edleak_tests::report::{Report, Site, is_named};
use edleak_tests::run::{Outcome, Running, run, wait_for};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::{repository, tools};
use std::path::Path;
use std::process::Command;

/// The number of the line in `source` that ends with `comment`.
fn line_of(source: &str, comment: &str) -> u64 {
    let path = repository().join("tests/programs/stacks").join(source);
    let text = std::fs::read_to_string(&path).expect("part of the repository");
    let at = text.lines().position(|line| line.ends_with(comment));
    at.unwrap_or_else(|| panic!("no line of {source} ends with `{comment}`")) as u64 + 1
}

/// Returns two lists: the sites that are full stacks, and those full stacks whose verdict is `leak`.
fn children(report: &Report) -> (Vec<&Site>, Vec<&Site>) {
    let children: Vec<&Site> = report.sites.iter().filter(|site| site.kind == "stack").collect();
    let leaks = children.iter().copied().filter(|site| site.verdict == "leak").collect();
    (children, leaks)
}

/// The frames of a site that lie in the file `source`, each as `function:line`.
fn own_frames(site: &Site, source: &str) -> Vec<String> {
    let own = site.stack.iter().filter(|frame| frame.file.ends_with(source));
    own.map(|frame| format!("{}:{}", bare_name(&frame.function), frame.line)).collect()
}

/// The last part of a function's name, without path, parameters and generic arguments. Different
/// demanglers print this part of a name in the same way.
fn bare_name(function: &str) -> &str {
    let without_parameters = function.split('(').next().unwrap_or_default();
    match without_parameters.rsplit("::").next().unwrap_or_default() {
        closure if closure.contains("closure") => "closure",
        name => name.split('<').next().unwrap_or_default(),
    }
}

fn assert_one_of_three_paths_leaks(name: &str, source: &str, recording: &Recording) {
    let report = recording.all_sites();
    let (children, leaks) = children(&report);
    let [leak] = leaks.as_slice() else { panic!("{name}: {} leaks:\n{}", leaks.len(), report.describe()) };
    assert!(leak.is_in("path_kept"), "{name}: {leak:?}");
    assert!(!leak.is_stack_cut, "{name}: {leak:?}");
    let at = |comment: &str| line_of(source, comment);
    let mut expected = vec![
        format!("new_node:{}", at("// the allocation")),
        format!("make:{}", at("// inlined here")),
        format!("descend:{}", at("// the bottom")),
    ];
    expected.extend(std::iter::repeat_n(format!("descend:{}", at("// the recursion")), 24));
    expected.push(format!("path_kept:{}", at("// leaks")));
    let frames = own_frames(leak, source);
    assert_eq!(frames[..expected.len()], expected, "{name}");
    assert!(leak.stack.iter().any(|frame| frame.inlined && is_named(&frame.function, "new_node")), "{name}");
    for path in ["path_freed", "path_window"] {
        let site = children.iter().find(|site| site.is_in(path));
        let site = site.unwrap_or_else(|| panic!("{name}: no stack through {path}:\n{}", report.describe()));
        assert_eq!(site.verdict, "no-leak", "{name}: {path}");
    }
    // The caller site has no counts of its own, because edleak counted all its allocations at full stacks
    // from the start.
    let parent = report.sites.iter().find(|site| Some(site.id) == leak.parent).expect("a stack has a site");
    assert_eq!(parent.counts, Default::default(), "{name}");
}

#[test]
fn of_three_paths_to_one_allocation_the_leaking_one_is_named() {
    std::thread::scope(|scope| {
        for (name, source) in
            [("paths_gcc", "paths.h"), ("paths_clang", "paths.h"), ("paths_rust", "paths_rust.rs")]
        {
            scope.spawn(move || {
                let recorder = Recorder::new(name).options(["--watch", "*make"]);
                let recording = recorder.record(stacks().binary(name), [""; 0]);
                assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
                assert_one_of_three_paths_leaks(name, source, &recording);
            });
        }
    });
}

/// Even without the option `--watch`, edleak-record begins to watch the leaking site during the recording.
#[test]
fn auto_watch_ends_up_with_the_stack_that_leaks() {
    let recorder = Recorder::new("auto-paths").options(["--period", "20ms"]);
    let recording = recorder.record(stacks().binary("paths_gcc"), ["--seconds", "6"]);
    let report = recording.all_sites();
    let (_, leaks) = children(&report);
    assert!(!leaks.is_empty(), "nothing was watched:\n{}", report.describe());
    for leak in leaks {
        assert!(leak.is_in("path_kept") && !leak.is_in("path_freed"), "{leak:?}");
    }
}

/// `--watch-from` names the trace of an earlier run. In the next run, edleak watches the leaking sites of the
/// earlier trace from the start, although their addresses differ.
#[test]
fn the_leaks_of_an_earlier_trace_are_watched() {
    let earlier = Recorder::new("earlier").record(stacks().binary("paths_gcc"), [""; 0]);
    let trace = earlier.trace.display().to_string();
    let recorder = Recorder::new("later").options(["--watch-from", &trace]);
    let later = recorder.record(stacks().binary("paths_gcc"), [""; 0]);
    assert_one_of_three_paths_leaks("paths_gcc", "paths.h", &later);
}

/// The frames that gdb shows when the program allocates `size` bytes. The first returned list has module and
/// offset of each frame that is not inlined. The second returned list has function and line of each frame in
/// the file `source`.
fn backtrace(program: &Path, size: u64, source: &str) -> (Vec<String>, Vec<String>) {
    let script = repository().join("tests/programs/stacks/backtrace.py");
    let mut gdb = Command::new("gdb");
    gdb.args(["-batch", "-nx", "-ex", &format!("set $size = {size}"), "-x"]).arg(script).arg(program);
    let Outcome { stdout, stderr, .. } = run(&mut gdb);
    let (mut real, mut own) = (Vec::new(), Vec::new());
    for line in stdout.lines().filter(|line| line.starts_with("frame\t")) {
        let [_, kind, module, offset, file, line, function] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("gdb printed {line}");
        };
        if kind == "real" {
            real.push(format!("{module}+{offset}"));
        }
        if kind != "tail call" && file.ends_with(source) {
            own.push(format!("{}:{line}", bare_name(function)));
        }
    }
    assert!(real.len() > 3, "gdb printed {stdout}{stderr}");
    (real, own)
}

fn assert_equals_gdb(name: &str, source: &str, sizes: &[u64]) {
    let recording = Recorder::new(name).options(["--watch", "*"]).record(stacks().binary(name), [""; 0]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let report = recording.all_sites();
    for &size in sizes {
        let (mut theirs, own) = backtrace(&stacks().binary(name), size, source);
        let site = report.sites.iter().find(|s| s.kind == "stack" && s.counts.allocated_bytes == size);
        let site = site.unwrap_or_else(|| panic!("{name}: no stack of {size} bytes:\n{}", report.describe()));
        let real = site.stack.iter().filter(|frame| !frame.inlined);
        let ours: Vec<String> = real
            .map(|frame| format!("{}+{}", frame.module.rsplit('/').next().unwrap_or_default(), frame.offset))
            .collect();
        // gdb's list begins with the frame of malloc, but edleak's list begins with the first caller that is
        // not a wrapper. gdb ends at main, but edleak continues to the end of the stack.
        let wrappers = theirs.iter().take_while(|frame| **frame != ours[0]).count();
        theirs.drain(..wrappers);
        assert_eq!(ours[..theirs.len().min(ours.len())], theirs, "{name}, {size} bytes");
        assert!(!site.is_stack_cut, "{name}: {site:?}");
        assert_eq!(own_frames(site, source), own, "{name}, {size} bytes");
    }
}

#[test]
fn c_stacks_equal_gdbs_through_qsort_and_a_shared_library() {
    assert_equals_gdb("marked_c", "marked_c.c", &[54321, 65433]);
}

#[test]
fn cpp_stacks_equal_gdbs_through_templates_virtual_calls_and_a_handler() {
    assert_equals_gdb("marked_cpp", "marked_cpp.cpp", &[54321]);
}

#[test]
fn rust_stacks_equal_gdbs_through_trait_objects_and_sorts() {
    assert_equals_gdb("marked_rust", "marked_rust.rs", &[54321]);
}

#[test]
fn the_stacks_of_coroutines_are_walked_to_their_end() {
    let recorder = Recorder::new("coroutines").options(["--watch", "bottom"]);
    let recording = recorder.record(stacks().binary("coroutine_stacks"), [""; 0]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let report = recording.all_sites();
    let (children, leaks) = children(&report);
    for (function, others) in [("coroutine_keeps", "coroutine_frees"), ("coroutine_frees", "coroutine_keeps")]
    {
        let whole = children.iter().filter(|site| site.is_in(function) && !site.is_stack_cut);
        let [site] = whole.collect::<Vec<_>>()[..] else {
            panic!("{function} has not one whole stack:\n{}", report.describe())
        };
        assert!(!site.is_in(others), "{site:?}");
        assert_eq!(own_frames(site, "coroutine_stacks.c").len(), 43, "{site:?}");
        // edleak learns within one slice which memory a new coroutine uses as its stack. Before edleak knows
        // the stack memory of a coroutine, the recorded stacks of the coroutine lack their outer frames, and
        // the report says so.
        assert!(site.counts.allocs > 400, "{site:?}");
    }
    assert!(leaks.iter().all(|leak| leak.is_in("coroutine_keeps")), "{}", report.describe());
    assert_eq!(leaks.len(), 1, "{}", report.describe());
}

/// Runs edleak-record with `words` as its arguments.
fn command(words: &[&str]) -> Outcome {
    run(Command::new(&tools().record).args(words))
}

/// Waits until `edleak-record sessions` lists the recording into `trace`, and returns the PID of its target.
fn session_of(trace: &Path) -> String {
    let mut pid = None;
    wait_for("the recording to be listed", || {
        let list = command(&["sessions"]).stdout;
        let lines: Vec<&str> = list.lines().collect();
        let at = lines.iter().position(|line| line.contains(&*trace.to_string_lossy()));
        pid = at.and_then(|at| lines[at - 1].split_whitespace().next()).map(str::to_owned);
        pid.is_some()
    });
    pid.expect("waited for")
}

/// Eight threads allocate while all functions, or some of them, are watched and unwatched again and again.
/// For every caller, the sum of its counts and the counts of its stacks must equal the count that the program
/// made itself.
#[test]
fn watches_set_and_removed_while_eight_threads_allocate_lose_nothing() {
    let dir = TempDir::new("watch-storm");
    let trace = dir.join("trace.edl");
    let enough = dir.join("enough");
    let args = ["8", "2000000", "7", enough.to_str().expect("UTF-8")];
    let recorder = Recorder::new("watch-storm");
    let recording = Running::start(&mut recorder.command(&trace, programs().binary("exact"), args), b"");
    let pid = session_of(&trace);
    for round in 0..24 {
        let spec = ["site_malloc", "*", "site_new*", "site_realloc*"][round / 2 % 4];
        let verb = ["watch", "unwatch"][round % 2];
        let said = command(&[verb, "--session", &pid, spec]);
        assert_eq!(said.code, 0, "{verb} {spec}: {}", said.stderr);
    }
    std::fs::write(&enough, "").expect("writable");
    let outcome = recording.finish();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let report = Report::of(&trace, &["--all", "--min-class", "constant"]);
    assert!(report.sites.iter().any(|site| site.kind == "stack"), "nothing was watched");
    assert_eq!(report.summary("unknown_frees"), 0);
    assert_equal(&report, &read_ledger(&outcome.stdout));
}

#[test]
fn a_running_recording_is_listed_and_can_be_asked() {
    let dir = TempDir::new("sessions");
    let trace = dir.join("trace.edl");
    let recorder = Recorder::new("sessions").options(["--no-watch"]);
    let recording =
        Running::start(&mut recorder.command(&trace, samples().binary("leaker"), ["--seconds", "600"]), b"");
    let pid = session_of(&trace);
    let listed = || {
        let list = command(&["sessions"]).stdout;
        let lines: Vec<&str> = list.lines().collect();
        let at = lines.iter().position(|line| line.contains(&*trace.to_string_lossy())).expect("it runs");
        let rest = lines[at + 1..].iter().take_while(|line| line.starts_with("         ")).copied();
        (lines[at - 1].to_owned(), rest.collect::<Vec<_>>().join("\n"))
    };
    assert!(listed().0.contains("leaker --seconds 600"), "{}", listed().0);
    assert_eq!(listed().1, "");

    let said = command(&["watch", "--session", &pid, "leak_new*"]);
    assert_eq!((said.code, &*said.stderr), (0, ""));
    assert!(said.stdout.starts_with("watching leak_new*: 2 functions"), "{}", said.stdout);
    assert_eq!(listed().1.trim(), "watching leak_new*");
    wait_for("stacks of leak_new", || {
        let report = Report::of(&trace, &["--all", "--min-class", "constant"]);
        report.sites.iter().any(|site| site.kind == "stack" && site.is_in("leak_new"))
    });
    let said = command(&["unwatch", "--session", &pid, "*"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(listed().1, "");

    // Names a site of the running recording by the trace and the id of the site.
    let report = Report::of(&trace, &["--all", "--min-class", "constant"]);
    let site = report.sites.iter().find(|site| site.kind == "caller" && site.is_in("leak_calloc"));
    let spec = format!("{}#{}", trace.display(), site.expect("it has allocated").id);
    let said = command(&["watch", "--session", &pid, &spec]);
    assert!(said.stdout.contains("1 function or address; 1 site seen so far changed"), "{said:?}");

    for (words, expected) in [
        (&["watch", "--session", "1", "x"][..], "process 1 is not being recorded"),
        (&["watch", "--session", &pid, "lib.so!x"], "is no hexadecimal offset"),
        (&["watch", "--session", &pid], "SPEC"),
        (&["watch", "--session", &pid, "/no/such.edl#3"], "No such file"),
    ] {
        let refused = command(words);
        assert_eq!(refused.code, 125, "{words:?}: {refused:?}");
        assert!(refused.stderr.contains(expected), "{words:?}: {}", refused.stderr);
    }
    recording.signal(libc::SIGINT);
    let ended = recording.finish();
    assert!(ended.stderr.contains("slices of"), "Ctrl-C ends the recording in order: {}", ended.stderr);
    assert!(!command(&["sessions"]).stdout.contains(&*trace.to_string_lossy()), "it is over");
}

/// The fast path and the slow path examine the same number of callers of a recursive wrapper. So edleak
/// counts all allocations of a recursive wrapper at one site.
#[test]
fn a_recursive_wrapper_has_the_same_site_on_every_way() {
    let recorder = Recorder::new("recursion").options(["--wrapper", "wrap_levels"]);
    let report = recorder.record(stacks().binary("wrapper_recursion"), [""; 0]).all_sites();
    for function in ["ask", "wrap_levels"] {
        assert_eq!(report.counts_of(function).allocs, 2000, "{function}:\n{}", report.describe());
        let used = report.sites_in(function).filter(|site| site.counts.allocs > 0).count();
        assert_eq!(used, 1, "{function}:\n{}", report.describe());
    }
}

/// Wrappers with every kind of frame call each other in every order. edleak must always count the allocations
/// of the wrappers at the common caller of the wrappers.
#[test]
fn wrappers_are_stepped_over_whatever_their_frames_are_like() {
    let recorder = Recorder::new("wrapper-frames").options(["--wrapper", "wrap_*"]);
    let report = recorder.record(stacks().binary("wrapper_frames"), [""; 0]).all_sites();
    assert_eq!(report.counts_of("ask").allocs, 2 * 20 * 4 * 256, "{}", report.describe());
    assert_eq!(report.sites_in("ask").count(), 1, "{}", report.describe());
}

/// The greatest amount of memory that a process has used so far, in KiB. Returns `None` if the process has
/// ended.
fn peak_kib(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

// In an earlier version of edleak, the collector used 1,500 MiB in this test, and the recording ended when
// the trace had no room for another stack.
#[test]
fn tens_of_thousands_of_stacks_take_bounded_memory_and_end_no_recording() {
    for (size, are_all_kept) in [("64m", true), ("1m", false)] {
        let recorder = Recorder::new("many_stacks").options(["--watch", "*", "--size", size]);
        let dir = TempDir::new("many_stacks");
        let trace = dir.join("trace.edl");
        let mut command = recorder.command(&trace, stacks().binary("many_stacks"), ["12"]);
        let running = Running::start(&mut command, b"");
        let (pid, mut peak) = (running.pid(), 0);
        wait_for("the end of the recording", || match peak_kib(pid) {
            Some(now) => {
                peak = now;
                false
            }
            None => true,
        });
        let outcome = running.finish();
        assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "ok\n"), "{}", outcome.stderr);
        assert!(peak < 160 << 10, "{peak} KiB with --size {size}");
        let report = Report::of(&trace, &["--all", "--min-class", "constant"]);
        assert_eq!(report.json["trace"]["complete"], true);
        let told = report.sites.iter().filter(|site| site.kind == "stack").count();
        assert_eq!(told > 20_000, are_all_kept, "{told} stacks with --size {size}");
    }
}
