//! Tests the main use of edleak from end to end: record a program, analyze the trace, and find the leak by
//! its function name. The recording must not disturb the program.

use edleak_tests::analyze::analyze;
use edleak_tests::directives::{Directives, Expectation};
use edleak_tests::programs::{name_of, samples};
use edleak_tests::record::{Recorder, Recording};
use edleak_tests::report::Report;
use edleak_tests::run::{Outcome, Running, run, run_with_input, wait_for};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::{repository, tools};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

const LEAKS: [&str; 7] = [
    "leak_malloc",
    "leak_calloc",
    "leak_realloc",
    "leak_posix_memalign",
    "leak_memalign",
    "leak_new",
    "leak_new_array",
];

/// The recording of the sample leaker. All tests that only read the trace of this sample share one recording.
fn leaker() -> &'static Recording {
    static RECORDING: std::sync::OnceLock<Recording> = std::sync::OnceLock::new();
    RECORDING.get_or_init(|| {
        let recorder = Recorder::new("leaker").options(["--period", "100ms"]);
        let recording = recorder.record(samples().binary("leaker"), ["--seconds", "8"]);
        assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
        recording
    })
}

#[test]
fn every_leak_of_the_leaker_is_named_with_its_line() {
    let report = Report::of(&leaker().trace, &["--min-class", "linear"]);
    assert_eq!(report.code, 1, "leaks are listed");
    let source =
        std::fs::read_to_string(repository().join("samples/leaker.cpp")).expect("part of the repository");
    for function in LEAKS {
        let sites: Vec<_> = report.leaks().filter(|site| site.is_in(function)).collect();
        assert!(!sites.is_empty(), "{function} is not reported:\n{}", report.describe());
        for site in sites {
            let frame = site.caller().expect("a site has a caller");
            assert!(frame.file.ends_with("samples/leaker.cpp"), "{function} is in `{}`", frame.file);
            // The report must name the line of the call, not the line of the next statement.
            let line = source.lines().nth(frame.line as usize - 1).unwrap_or("");
            let calls = ["malloc(", "calloc(", "realloc(", "memalign(", "new "];
            assert!(
                calls.iter().any(|call| line.contains(call)),
                "{function} at line {}: `{line}`",
                frame.line
            );
        }
    }
    for function in ["cache_insert", "churn", "startup_table"] {
        assert_eq!(report.leaks().filter(|site| site.is_in(function)).count(), 0, "{function} is no leak");
    }
    let leaks = report.leaks().count();
    assert!((LEAKS.len()..=LEAKS.len() + 1).contains(&leaks), "{leaks} leaks:\n{}", report.describe());
}

#[test]
fn the_text_report_is_readable() {
    let outcome = analyze(["--min-class", "linear"], &leaker().trace);
    assert_eq!(outcome.code, 1);
    for function in LEAKS {
        assert!(outcome.stdout.contains(function), "{function} is not in the text:\n{}", outcome.stdout);
    }
    assert!(outcome.stdout.contains("leaker.cpp:"), "no file and line:\n{}", outcome.stdout);
    assert!(!outcome.stdout.contains("cache_insert"), "the cache is no leak:\n{}", outcome.stdout);
    assert!(!outcome.stdout.contains('\x1b'), "colour, though this is no terminal");
    for line in outcome.stdout.lines() {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
    }
}

#[test]
fn the_recorder_says_one_line_at_the_start_and_one_at_the_end() {
    let Outcome { stdout, stderr, .. } = &leaker().outcome;
    assert_eq!(stdout, "", "the recorder prints to standard error only");
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
    assert!(stderr.lines().all(|line| line.starts_with("edleak")), "{stderr}");
    assert!(stderr.contains("edleak-analyze"), "the last line says what to run next: {stderr}");
}

#[test]
fn exit_zero_reports_the_same_and_exits_zero() {
    let plain = analyze(["--min-class", "linear"], &leaker().trace);
    let forgiving = analyze(["--min-class", "linear", "--exit-zero"], &leaker().trace);
    assert_eq!((plain.code, forgiving.code), (1, 0));
    assert_eq!(plain.stdout, forgiving.stdout);
}

/// Prints the series of a trace with `--format series` and analyzes the printed series. The analysis of the
/// trace and the analysis of the series must find the same leaks.
#[test]
fn printed_series_lead_to_the_same_verdicts() {
    let dir = TempDir::new("series");
    let file = dir.join("leaker.ndjson");
    std::fs::write(&file, analyze(["--all", "--format", "series"], &leaker().trace).stdout)
        .expect("writable");
    let from_trace = Report::of(&leaker().trace, &[]);
    let from_series = analyze(["--format", "json"], &file);
    assert_eq!(from_series.code, from_trace.code, "{}", from_series.stderr);
    let json: serde_json::Value = serde_json::from_str(&from_series.stdout).expect("a JSON report");
    // Series contain no function names, so the report of the series cannot join the sites that belong to one
    // function.
    let leaking = |json: &serde_json::Value| -> BTreeSet<u64> {
        let sites = json["sites"].as_array().expect("sites").iter();
        sites.filter(|site| site["verdict"] == "leak").filter_map(|site| site["id"].as_u64()).collect()
    };
    assert_eq!(leaking(&json), leaking(&from_trace.json));
    assert!(leaking(&json).len() > 3, "{json}");
}

/// A report must be the same for any number of threads of edleak-analyze.
#[test]
fn a_report_does_not_depend_on_the_number_of_threads() {
    let with_threads = |n: &str| {
        let mut command = Command::new(&tools().analyze);
        run(command.args(["--format", "json", "--all"]).arg(&leaker().trace).env("RAYON_NUM_THREADS", n))
            .stdout
    };
    assert_eq!(with_threads("1"), with_threads("7"));
}

// ---------------------------------------------------------------- labelled samples

/// The differences between the report of a sample and the leaks that its directives expect.
fn judge(report: &Report, expectation: &Expectation) -> Vec<String> {
    let mut wrong = Vec::new();
    for function in &expectation.leaks {
        if !report.leaks().any(|site| site.is_in(function)) {
            wrong.push(format!("the leak in {function} is not reported"));
        }
    }
    if expectation.nothing_else {
        for site in report.leaks().filter(|site| !expectation.leaks.iter().any(|f| site.is_in(f))) {
            wrong.push(format!("a leak that is none: {site:?}"));
        }
    }
    if !expectation.leaks.is_empty() && report.code != 1 {
        wrong.push(format!("exit code {} with leaks", report.code));
    }
    if expectation.leaks.is_empty() && report.code == 1 {
        wrong.push("exit code 1 without leaks".to_owned());
    }
    wrong
}

fn check_sample(source: &Path) -> Vec<String> {
    let directives = Directives::read(source);
    let name = name_of(source);
    let recorder = Recorder::new(&name).options(directives.words("Record"));
    let recording = recorder.record(samples().binary(&name), directives.words("Run"));
    if recording.outcome.code != 0 {
        return vec![format!("exit code {}: {}", recording.outcome.code, recording.outcome.stderr)];
    }
    let report = recording.leaks();
    let mut wrong = judge(&report, &directives.expectation());
    if !wrong.is_empty() {
        wrong.push(recording.all_sites().describe());
    }
    wrong
}

/// Runs several samples at the same time, because the samples mostly sleep.
#[test]
fn samples_are_judged_as_they_are_labelled() {
    let sources = samples().sources();
    assert!(sources.len() >= 24, "only {} samples", sources.len());
    tools();
    let todo = Mutex::new(sources.iter());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let Some(source) = todo.lock().expect("no thread panics with it").next() else { break };
                    let wrong = check_sample(source);
                    if !wrong.is_empty() {
                        let report = format!("{}:\n  {}", name_of(source), wrong.join("\n  "));
                        failures.lock().expect("no thread panics with it").push(report);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no thread panics with it");
    assert!(failures.is_empty(), "{} of {} samples:\n{}", failures.len(), sources.len(), failures.join("\n"));
}

// ---------------------------------------------------------------- real programs

/// Runs `program` twice: without edleak, and recorded by edleak. The recorded run must have the same output
/// and exit status as the run without edleak. The trace must contain callers in each of `modules`.
fn assert_undisturbed(program: &str, arguments: &[&str], input: &str, modules: &[&str]) -> Recording {
    let plain = run_with_input(Command::new(program).args(arguments), input.as_bytes());
    let recording = Recorder::new("real").record_with_input(program, arguments, input.as_bytes());
    let seen = |outcome: &Outcome| (outcome.code, outcome.stdout.clone(), outcome.stderr_of_target());
    assert_eq!(
        seen(&recording.outcome),
        seen(&plain),
        "{program} {arguments:?}: recorded (left), plain (right)"
    );
    let report = recording.all_sites();
    assert!(report.summary("allocs") > 0, "{program}: nothing was counted");
    for module in modules {
        assert!(
            report.sites.iter().any(|site| site.caller().is_some_and(|frame| frame.module.contains(module))),
            "{program}: no caller in {module}:\n{}",
            report.describe()
        );
    }
    for site in &report.sites {
        let is_ours = site.stack.iter().any(|frame| frame.module.contains("libedleak"));
        assert!(!is_ours, "{program}: a site of our own: {site:?}");
    }
    recording
}

#[test]
fn python3_is_undisturbed() {
    let script = "import json,sys,subprocess,threading,ctypes\n\
        d={str(i):[i]*i for i in range(300)}\n\
        t=[threading.Thread(target=lambda: [bytearray(n) for n in range(5000)]) for _ in range(4)]\n\
        [x.start() for x in t]; [x.join() for x in t]\n\
        print(len(json.dumps(d)), subprocess.run(['echo','from a child'],capture_output=True).stdout)\n\
        sys.stderr.write('on stderr\\n'); sys.exit(3)\n";
    assert_undisturbed("python3", &["-c", script], "", &["python"]);
}

#[test]
fn sqlite3_is_undisturbed() {
    let sql = "create table t(a,b); with recursive n(i) as (select 1 union all select i+1 from n \
               where i<5000) insert into t select i, hex(i*i) from n; create index i on t(b); \
               select count(*), max(b), sum(length(b)) from t; select nothing from nowhere;";
    assert_undisturbed("sqlite3", &[":memory:"], sql, &["sqlite3"]);
}

#[test]
fn jq_is_undisturbed() {
    let filter =
        "[range(2000)|{id:.,name:(.|tostring),half:(./2)}]|map(select(.id%7==0))|group_by(.id%3)|map(length)";
    assert_undisturbed("jq", &["-n", "-c", filter], "", &["jq"]);
}

#[test]
fn perl_is_undisturbed() {
    let script = "my %h; $h{$_ % 977} .= chr(65+$_%26) for 1..50000; my $s=0; $s+=length for values %h; \
                  print \"$s\\n\", scalar(keys %h), \"\\n\"; warn \"careful\\n\"; exit 4";
    assert_undisturbed("perl", &["-e", script], "", &["perl"]);
}

#[test]
fn bash_is_undisturbed() {
    let script = "declare -A a; for i in {1..3000}; do a[$((i%100))]+=x; done; echo ${#a[@]} ${#a[7]}; \
                  (exit 3); echo $?; echo sub | cat | tr a-z A-Z; $(true); kill -TERM $$";
    assert_undisturbed("bash", &["-c", script], "", &["bash"]);
}

#[test]
fn git_is_undisturbed() {
    let root = repository().to_str().expect("a path in UTF-8");
    assert_undisturbed("git", &["-C", root, "log", "--oneline", "--stat", "-n", "50"], "", &["git"]);
}

#[test]
fn gcc_is_undisturbed() {
    let source = repository().join("samples/leaker.cpp");
    let include = format!("-I{}", repository().join("samples/common").display());
    let source = source.to_str().expect("a path in UTF-8");
    assert_undisturbed("g++", &["-std=c++17", &include, "-O2", "-S", "-o", "-", source], "", &["g++"]);
}

#[test]
fn a_rust_program_is_undisturbed() {
    // Records edleak-analyze itself, which is a Rust program with a thread pool.
    let analyzer = tools().analyze.to_str().expect("a path in UTF-8");
    let trace = leaker().trace.to_str().expect("a path in UTF-8");
    assert_undisturbed(analyzer, &["--format", "json", "--all", trace], "", &["edleak-analyze"]);
}

/// Records redis-server while clients use it. A signal that edleak-record passes on ends the server.
#[test]
fn redis_server_is_undisturbed() {
    let dir = TempDir::new("redis");
    let socket = dir.join("redis.sock");
    let socket = socket.to_str().expect("a path in UTF-8");
    let client = |arguments: &[&str]| run(Command::new("redis-cli").args(["-s", socket]).args(arguments));
    let session = |command: &mut Command| {
        let server = Running::start(command, b"");
        wait_for("redis-server to answer", || client(&["ping"]).stdout == "PONG\n");
        let mut answers = String::new();
        for arguments in [
            &["set", "greeting", "hello"][..],
            &["append", "greeting", " world"],
            &["get", "greeting"],
            &[
                "eval",
                "for i=1,1000 do redis.call('rpush','list',i..'-value') end return redis.call('llen','list')",
                "0",
            ],
            &["lrange", "list", "500", "503"],
            &["debug", "jmap"],
        ] {
            answers += &client(arguments).stdout;
        }
        let benchmark = Command::new("redis-benchmark")
            .args(["-s", socket, "-q", "-n", "20000", "-c", "20", "-P", "8", "-t", "set,get,lpush,hset"])
            .output()
            .expect("redis-tools is installed");
        assert!(benchmark.status.success());
        answers += &client(&["dbsize"]).stdout;
        server.signal(libc::SIGTERM);
        (answers, server.finish().code)
    };
    let arguments = ["--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir", "/"]
        .map(str::to_owned);
    let plain = session(Command::new("redis-server").args(&arguments));
    let trace = dir.join("redis.edl");
    let recorded = session(&mut Recorder::new("redis").command(&trace, "redis-server", &arguments));
    assert_eq!(recorded, plain, "recorded (left), plain (right)");
    let report = Report::of(&trace, &["--all", "--min-class", "constant"]);
    assert!(report.summary("allocs") > 1000, "{}", report.json["summary"]);
    assert_eq!(report.json["trace"]["complete"], true);
}
