//! Tests pools, the allocators that a program writes for its own objects. The counts must equal the program's
//! own counts, the callers of a pool get verdicts, and the programs must also run without edleak.

use edleak_tests::analyze::analyze;
use edleak_tests::ledger::{Ledger, read_ledger};
use edleak_tests::programs::programs;
use edleak_tests::record::{Recorder, Recording};
use edleak_tests::report::{Counts, Report, is_named};
use edleak_tests::run::run;
use edleak_tests::tools::repository;
use serde_json::Value;
use std::process::Command;

/// The sites of a report whose domain is `pool`.
fn pool_sites(report: &Report) -> Vec<&Value> {
    let all = report.json["sites"].as_array().expect("an array").iter();
    all.filter(|site| site["domain"] == "pool").collect()
}

fn number(site: &Value, field: &str) -> u64 {
    site[field].as_u64().unwrap_or_else(|| panic!("no `{field}` in {site}"))
}

/// The sum of the counts of all sites in `function` that get objects from a pool.
fn counts_of(report: &Report, function: &str) -> Counts {
    let mut sum = Counts::default();
    let is_in = |site: &&Value| is_named(site["name"].as_str().unwrap_or_default(), function);
    for site in pool_sites(report).into_iter().filter(is_in) {
        sum.add(&Counts {
            allocs: number(site, "allocs"),
            allocated_bytes: number(site, "allocated_bytes"),
            frees: number(site, "frees"),
            freed_bytes: number(site, "freed_bytes"),
        });
    }
    sum
}

fn assert_pools_equal(report: &Report, ledger: &Ledger) {
    let found: Ledger = ledger.keys().map(|name| (name.clone(), counts_of(report, name))).collect();
    assert_eq!(&found, ledger, "trace (left) and ledger (right): {}", report.json["pools"]);
}

/// The program makes fewer pool events than the ring of events holds. So no pool event is lost, even if the
/// collector is slow.
fn assert_exact(threads: u32, seed: u32) -> Report {
    let args = [threads.to_string(), "200000".into(), seed.to_string()];
    let recording = Recorder::new("pools").record(programs().binary("pools"), &args);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let ledger = read_ledger(&recording.outcome.stdout);
    let is_used = |counts: &Counts| counts.allocs > 1000 && counts.frees > 1000;
    assert_eq!(ledger.values().filter(|counts| is_used(counts)).count(), 4, "{ledger:?}");
    let report = recording.all_sites();
    let losses =
        ["lost_events", "lost_resets", "unknown_frees"].map(|loss| number(&report.json["pools"], loss));
    assert_eq!(losses, [0; 3]);
    assert_pools_equal(&report, &ledger);
    report
}

#[test]
fn objects_of_one_thread_are_exact() {
    let report = assert_exact(1, 1);
    let live: u64 = pool_sites(&report).iter().map(|site| number(site, "live_bytes")).sum();
    assert_eq!(number(&report.json["pools"], "live_bytes"), live);
    // The program has four pools, and one more pool from which these four take their chunks.
    assert_eq!(number(&report.json["pools"], "pools"), 5);
    // Pools take their bytes from the heap, so the totals do not count the bytes of pools again.
    let heap = report.json["sites"].as_array().expect("an array").iter();
    let heap = heap.filter(|site| site["domain"] == "heap").map(|site| number(site, "live_bytes"));
    assert_eq!(report.summary("live_bytes"), heap.sum::<u64>());
}

#[test]
fn objects_of_four_threads_are_exact() {
    assert_exact(4, 2);
    assert_exact(4, 3);
}

/// Two pools of the program have the same name, so the report must show them as one pool. The name of the
/// pool is part of a site: a function that uses pools with two different names has two sites.
#[test]
fn pools_of_one_name_are_one_pool_in_the_report() {
    let report = assert_exact(1, 4);
    let mut names: Vec<_> = report.json["pools"]["names"]
        .as_array()
        .expect("an array")
        .iter()
        .map(|pool| pool["name"].as_str().unwrap_or_default())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["chunks", "pool 0", "pool 1"]);
    let of = |name: &str| {
        let sites = pool_sites(&report).into_iter().filter(|site| site["pool"] == name);
        sites.map(|site| number(site, "allocs")).sum::<u64>()
    };
    assert_eq!(of("chunks"), 4);
    assert!(of("pool 0") > 1000 && of("pool 1") > 1000, "{}", report.describe());
}

fn server(mode: &str, options: &[&str]) -> Recording {
    let recorder = Recorder::new(&format!("pool-{mode}")).options(options);
    let recording = recorder.record(programs().binary("pool_server"), [mode]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    recording
}

fn words(options: &[&str], recording: &Recording) -> String {
    let text = analyze(options, &recording.trace).stdout;
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn an_object_that_each_request_leaves_in_an_arena_is_a_leak_of_its_caller() {
    let recording = server("leak", &[]);
    let report = recording.leaks();
    assert_eq!(report.code, 1, "{}", report.json["summary"]);
    let of_pools: Vec<_> = pool_sites(&report).into_iter().filter(|site| site["verdict"] == "leak").collect();
    let [leak] = of_pools.as_slice() else { panic!("{}", report.describe()) };
    assert_eq!((&leak["name"], &leak["pool"]), (&Value::from("remember_request"), &"connections".into()));
    let functions: Vec<_> =
        leak["stack"].as_array().expect("an array").iter().map(|f| &f["function"]).collect();
    assert!(functions.ends_with(&[&"arena_alloc".into(), &"remember_request".into()]), "{functions:?}");
    let text = words(&[], &recording);
    assert!(text.contains("Pools (objects that the program's own pools hand out"), "{text}");
    assert!(text.contains("from pool `connections`, through arena_alloc"), "{text}");
    assert!(text.contains("pools: "), "{text}");
    let html = words(&["--format", "html"], &recording);
    assert!(
        html.contains("id=\"pools\"") && html.contains("from pool <bdi class=\"name\">connections"),
        "{html}"
    );
    // The counts of the objects are exact: each of the 600 requests makes 21 objects, and a reset takes all
    // of them back.
    let all = recording.all_sites();
    let counts = counts_of(&all, "handle");
    let parsed = counts_of(&all, "parse_header");
    let mut requests = counts;
    requests.add(&parsed);
    let bytes = 600 * (210 + 100);
    let expected = Counts { allocs: 600 * 21, allocated_bytes: bytes, frees: 600 * 21, freed_bytes: bytes };
    assert_eq!(requests, expected, "{}", all.describe());
    assert_eq!(counts_of(&all, "remember_request").allocated_bytes, 600 * 300);
}

#[test]
fn a_table_of_objects_that_becomes_full_is_no_leak() {
    let report = server("cache", &[]).leaks();
    assert_eq!(report.code, 0, "{}: {}", report.json["summary"], report.describe());
    assert_eq!(report.leaks().count(), 0, "{}", report.describe());
    assert_eq!(number(&report.json["pools"], "live_bytes"), 200 * 200);
}

#[test]
fn pools_are_left_alone_with_the_heap_alone() {
    let report = server("leak", &["--domains", "heap"]).all_sites();
    assert_eq!((pool_sites(&report).len(), &report.json["pools"]), (0, &Value::Null));
    assert!(report.summary("allocs") > 600);
}

/// Without edleak, a program runs as it would without the header edleak.h, and needs no symbol of edleak.
#[test]
fn a_program_without_edleak_only_skips_the_calls() {
    let program = programs().binary("pools");
    let alone = run(Command::new(&program).args(["1", "20000", "9"]));
    assert_eq!(alone.code, 0, "{}", alone.stderr);
    let recording = Recorder::new("pools-output").record(&program, ["1", "20000", "9"]);
    assert_eq!(alone.stdout, recording.outcome.stdout);
    for name in ["pools", "libpool_arena.so"] {
        let symbols = run(Command::new("nm").arg("-D").arg(programs().binary(name))).stdout;
        let own: Vec<_> = symbols.lines().filter(|line| line.contains("edleak")).map(str::trim).collect();
        assert_eq!(own, ["w edleak_note_pool"], "{name}");
    }
}

/// A statically linked program cannot be recorded, but must link and run with the header edleak.h.
#[test]
fn a_static_program_links_and_runs() {
    let dir = edleak_tests::temp::TempDir::new("pool-static");
    let (source, program) = (dir.join("pool.c"), dir.join("pool"));
    let text = "#include <edleak.h>\nstatic char pool;\nint main(void) { edleak_pool_name(&pool, \"p\"); \
                edleak_pool_alloc(&pool, &pool, 1); edleak_pool_reset(&pool); return 7; }\n";
    std::fs::write(&source, text).expect("it is ours");
    for flags in [&["-static", "-O2"][..], &["-static", "-O0"], &["-no-pie"], &["-std=c99", "-pedantic"]] {
        let mut build = Command::new("gcc");
        build.args(flags).args(["-Wall", "-Wextra", "-Werror", "-I"]);
        build.arg(repository().join("recorder/cli/include")).arg(&source).arg("-o").arg(&program);
        let built = run(&mut build);
        assert_eq!(built.code, 0, "{flags:?}: {}", built.stderr);
        assert_eq!(run(&mut Command::new(&program)).code, 7, "{flags:?}");
    }
}

#[test]
fn macros_of_valgrind_and_asan_are_counted() {
    let recording = Recorder::new("pool-macros").record(programs().binary("pool_macros"), [""; 0]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let report = recording.all_sites();
    let counted = |function: &str| {
        let Counts { allocs, allocated_bytes, frees, freed_bytes } = counts_of(&report, function);
        [allocs, allocated_bytes, frees, freed_bytes]
    };
    assert_eq!(counted("in_pool"), [20, 2000, 17, 1700], "{}", report.describe());
    assert_eq!(counted("as_block"), [3, 21, 1, 7], "{}", report.describe());
    assert_eq!(counted("in_arena"), [16, 16 * 33, 9, 9 * 33], "{}", report.describe());
    assert_eq!(number(&report.json["pools"], "unknown_frees"), 0);
}

/// Rust code cannot ask for the caller of a function. So an object of the arena is counted at the function
/// into which the pool's function is inlined. If the pool's function is not inlined, `--wrapper` names it.
#[test]
fn objects_of_an_arena_in_rust_are_exact() {
    let recorder = Recorder::new("pool-rust").options(["--wrapper", "*alloc_apart*"]);
    let recording = recorder.record(programs().binary("pool_rust"), ["10000"]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let report = recording.all_sites();
    assert_pools_equal(&report, &read_ledger(&recording.outcome.stdout));
    assert_eq!(report.json["marks"][0]["name"], "round");
    assert_eq!(report.json["marks"][0]["count"], 10_000);
}

/// A forked child begins with copies of the pool objects of its parent. If the child frees its copies, the
/// pool objects of the parent stay live.
#[test]
fn a_forked_child_has_the_objects_of_its_parent() {
    let recording = server("fork", &["--children"]);
    let live = |report: &Report, function: &str| {
        let counts = counts_of(report, function);
        counts.allocated_bytes - counts.freed_bytes
    };
    assert_eq!(live(&recording.all_sites(), "in_parent"), 4000);
    let traces = std::fs::read_dir(recording.dir.path()).expect("it is ours");
    let paths = traces.map(|entry| entry.expect("it is ours").path());
    let is_trace = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "edl");
    let children: Vec<_> = paths.filter(|path| *path != recording.trace && is_trace(path)).collect();
    let [child] = children.as_slice() else { panic!("{children:?}: {}", recording.outcome.stderr) };
    let report = Report::of(child, &["--all", "--min-class", "constant"]);
    assert_eq!(
        (live(&report, "in_parent"), live(&report, "in_child")),
        (3000, 1000),
        "{}",
        report.describe()
    );
}

/// The collector is stopped while the program makes its events, so the ring of events fills up.
#[test]
fn exactly_the_events_beyond_the_room_of_the_ring_are_lost_and_told() {
    /// The number of object events that fit into the ring of events. One more entry of the ring (the 1 that
    /// is subtracted) holds the pool's name.
    const ROOM: u64 = (1 << 18) - (1 << 12) - (1 << 13) - 1;
    for objects in [ROOM, ROOM + 50_000] {
        let recording =
            Recorder::new("pool-flood").record(programs().binary("pool_flood"), [objects.to_string()]);
        assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
        let report = recording.all_sites();
        let lost = objects - ROOM;
        assert_eq!(number(&report.json["pools"], "lost_events"), lost);
        assert_eq!(number(&report.json["pools"], "lost_resets"), 0, "the ring has a reserve for resets");
        let counts = counts_of(&report, "site_flood");
        assert_eq!((counts.allocs, counts.frees), (ROOM, ROOM), "{}", report.describe());
        assert_eq!(words(&[], &recording).contains("lost event"), lost > 0, "{}", words(&[], &recording));
    }
}

#[test]
fn names_of_pools_are_hidden_in_an_anonymized_trace() {
    let recording = server("calm", &[]);
    let hidden = recording.dir.join("hidden.edl");
    let mut command = Command::new(&edleak_tests::tools::tools().analyze);
    command.args(["anonymize", "-o"]).arg(&hidden).arg(&recording.trace);
    let outcome = run(&mut command);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let report = Report::of(&hidden, &["--all", "--min-class", "constant"]);
    let sites = pool_sites(&report);
    let named = |site: &&Value| site["pool"].as_str().is_some_and(|name| name.starts_with("pool_"));
    assert!(!sites.is_empty() && sites.iter().all(named), "{}", report.json["pools"]);
}
