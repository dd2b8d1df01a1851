//! Tests `edleak-record top` during a recording: with keys on a terminal, and in a pipe for a script.

use edleak_tests::programs::samples;
use edleak_tests::record::Recorder;
use edleak_tests::run::{Running, run, wait_for};
use edleak_tests::temp::TempDir;
use edleak_tests::terminal::Terminal;
use edleak_tests::tools::tools;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Starts a recording of the sample leaker. The collector of the recording and every `top` of a test use the
/// same directory of sockets. The leaks have no full stacks until a test asks for full stacks.
fn recording(dir: &TempDir) -> Running {
    let trace = dir.join("trace.edl");
    let recorder =
        Recorder::new("top").options(["--no-watch"]).env("XDG_RUNTIME_DIR", &dir.path().to_string_lossy());
    let mut command = recorder.command(&trace, samples().binary("leaker"), ["--seconds", "100"]);
    let running = Running::start(&mut command, b"");
    wait_for("ten slices", || {
        let json = once(dir.path());
        json.is_some_and(|json| json["process"]["slices"].as_u64().is_some_and(|slices| slices >= 40))
    });
    running
}

fn top(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(&tools().record);
    command
        .arg("top")
        .args(arguments)
        .env("XDG_RUNTIME_DIR", dir)
        .env("LANG", "C.UTF-8")
        .env_remove("NO_COLOR");
    command
}

fn once(dir: &Path) -> Option<Value> {
    let outcome = run(&mut top(dir, &["--once", "--format", "json"]));
    serde_json::from_str(&outcome.stdout).ok()
}

#[test]
fn json_of_top_lists_the_leaks_so_far() {
    let dir = TempDir::new("top-once");
    let running = recording(&dir);
    let mut json = Value::Null;
    wait_for("the leaks of the leaker", || {
        json = once(dir.path()).expect("the recording goes on");
        json["process"]["leaks"].as_u64().is_some_and(|leaks| leaks >= 7)
    });
    let sites = json["sites"].as_array().expect("sites");
    let find = |function: &str| sites.iter().find(|site| site["function"] == function);
    for function in ["leak_malloc", "leak_calloc", "leak_new", "leak_memalign"] {
        let site = find(function).unwrap_or_else(|| panic!("{function} is not in {json}"));
        assert_eq!(site["verdict"], "leak", "{site}");
        assert!(site["file"].as_str().expect("a file").ends_with("leaker.cpp"), "{site}");
    }
    assert_ne!(find("startup_table").expect("it allocates")["verdict"], "leak");
    let live: u64 = sites.iter().map(|site| site["live_bytes"].as_u64().expect("bytes")).sum();
    assert_eq!(json["process"]["live_bytes"], live, "rows add up to the process");
    // Without a terminal, `top` prints one screen, and every line has at most 80 columns.
    let text = run(&mut top(dir.path(), &[])).stdout;
    assert!(text.lines().count() <= 24 + 1 && text.contains("leak_malloc"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    running.signal(libc::SIGTERM);
    running.finish();
    let over = run(&mut top(dir.path(), &["--once"]));
    assert_eq!(over.code, 125);
    assert!(
        over.stderr.contains("no recording is running (start one: edleak-record PROGRAM)"),
        "{}",
        over.stderr
    );
}

#[test]
fn a_terminal_shows_sorts_filters_watches_and_leaves() {
    let dir = TempDir::new("top-terminal");
    let running = recording(&dir);
    let mut terminal = Terminal::start(&mut top(dir.path(), &[]), 24, 80);
    // `top` prints the line with `q leave` last. If the screen contains `q leave`, the screen is complete.
    let screen = terminal.wait_for("a leak", |screen| {
        (screen.contains("LEAK") || screen.contains("SUSPECT")) && screen.contains("q leave")
    });
    assert!(screen.contains("edleak top: pid "), "{screen}");
    assert!(terminal.has_colour());

    terminal.press("/malloc\r");
    let screen = terminal.wait_for("the filter", |screen| screen.contains("filter: malloc"));
    assert!(screen.contains("leak_malloc") && !screen.contains("leak_calloc"), "{screen}");

    terminal.press("\r");
    terminal.wait_for("the page of the site", |screen| screen.contains("no stacks are recorded here"));
    terminal.press("w");
    let screen = terminal
        .wait_for("a stack", |screen| screen.contains("live allocation") && screen.contains("  main"));
    assert!(screen.contains("leak_malloc"), "{screen}");
    let watched = once(dir.path()).expect("the recording goes on");
    assert!(watched["process"]["watched"].as_str().expect("a list").contains("build-id:"), "{watched}");
    terminal.press("w");
    wait_for("the end of the watch", || {
        once(dir.path()).is_some_and(|json| json["process"]["watched"] == "")
    });

    terminal.press("q");
    terminal.wait_for("the list", |screen| screen.contains("/ filter"));
    terminal.press("/\u{1b}");
    terminal.wait_for("all sites", |screen| screen.contains("leak_calloc"));
    terminal.press("s");
    let screen = terminal.wait_for("another order", |screen| screen.contains("sorted by live bytes"));
    let first = screen.lines().nth(4).expect("a row");
    assert!(first.contains("startup_table"), "the largest site comes first: {screen}");

    // The test makes the terminal narrow and then wide again. The test also kills a second `top`: this must
    // disturb neither the recording nor the first `top`.
    terminal.resize(12, 60);
    terminal.wait_for("the keys in the narrow window", |screen| screen.contains("Enter stacks"));
    terminal.resize(30, 100);
    drop(Terminal::start(&mut top(dir.path(), &[]), 24, 80));
    terminal.press("p");
    terminal.wait_for("the pause", |screen| screen.contains("paused"));
    terminal.press("pq");
    assert!(terminal.finish().success());
    // The recording continues after `top` has ended.
    let slices = |json: Option<Value>| json.and_then(|json| json["process"]["slices"].as_u64());
    let before = slices(once(dir.path()));
    wait_for("another slice", || slices(once(dir.path())) > before);
    running.signal(libc::SIGTERM);
    running.finish();
}

/// A resize and a key that arrive at the same time are both handled. With crossterm's default way to wait for
/// input, the key was lost, or `top` did not refresh before the next key.
#[test]
fn every_key_counts_while_the_window_changes() {
    let dir = TempDir::new("top-keys");
    let running = recording(&dir);
    let mut terminal = Terminal::start(&mut top(dir.path(), &[]), 24, 80);
    terminal.wait_for("the first screen", |screen| screen.contains("q leave"));
    for _ in 0..50 {
        for (rows, is_paused) in [(20, true), (24, false)] {
            terminal.resize(rows, 80);
            terminal.press("p");
            terminal.wait_for("the pause or its end", |screen| {
                screen.contains("q leave") && screen.contains("paused") == is_paused
            });
        }
    }
    // A terminal may send a key that crossterm does not know. The view goes on after such a key.
    terminal.press("\u{1b}[999~");
    let slices = |screen: &str| screen.lines().nth(1).map(str::to_owned);
    let before = slices(&terminal.screen());
    terminal.wait_for("a refresh", |screen| slices(screen) != before);
    terminal.press("q");
    assert!(terminal.finish().success());
    running.signal(libc::SIGTERM);
    running.finish();
}

#[test]
fn dumb_terminal_gets_one_line_with_the_remedy() {
    let dir = TempDir::new("top-dumb");
    let running = recording(&dir);
    let on_dumb_terminal = |options: &[&str]| {
        let mut command = Command::new("env");
        command.arg("TERM=dumb").arg(&tools().record).arg("top").args(options);
        Terminal::start(command.env("XDG_RUNTIME_DIR", dir.path()), 24, 120)
    };
    let terminal = on_dumb_terminal(&[]);
    let said = "edleak-record: a terminal of the type `dumb` cannot show a live view \
                (print one screen with `edleak-record top --once`)";
    let screen = terminal.wait_for("the remedy", |screen| screen.contains("cannot show a live view"));
    assert_eq!(screen.trim_end(), said);
    assert_eq!(terminal.finish().code(), Some(125));
    let terminal = on_dumb_terminal(&["--once"]);
    terminal.wait_for("one screen", |screen| screen.contains("edleak top: pid "));
    assert!(terminal.finish().success());
    running.signal(libc::SIGTERM);
    running.finish();
}

#[test]
fn without_colour_a_terminal_shows_the_same_words() {
    let dir = TempDir::new("top-plain");
    let running = recording(&dir);
    let mut terminal = Terminal::start(top(dir.path(), &[]).env("NO_COLOR", "1"), 24, 80);
    terminal.wait_for("a leak", |screen| screen.contains("LEAK") || screen.contains("SUSPECT"));
    assert!(!terminal.has_colour());
    running.signal(libc::SIGTERM);
    running.finish();
    terminal.wait_for("the end of the recording", |screen| screen.contains("the recording has ended"));
    terminal.press("q");
    assert!(terminal.finish().success());
}
