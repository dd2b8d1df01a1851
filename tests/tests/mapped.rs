//! Tests mapped memory: the ranges of each site equal the program's own counts, sites get verdicts, and the
//! report shows memory that no recorded call mapped.

use edleak_tests::analyze::analyze;
use edleak_tests::ledger::{assert_equal, given_back, given_back_of_ledger, read_ledger};
use edleak_tests::programs::{attribution, programs};
use edleak_tests::record::{Recorder, Recording};
use edleak_tests::report::Report;
use serde_json::Value;

fn mapped<'a>(report: &'a Report, field: &str) -> &'a Value {
    &report.json["mapped"][field]
}

/// Records tests/programs/mappings.cpp, which keeps a ledger of its mappings. The counters of every site that
/// maps memory must equal the program's ledger to the byte.
fn assert_exact(threads: u32, operations: u32, seed: u32) {
    let args = [threads.to_string(), operations.to_string(), seed.to_string()];
    let recording = Recorder::new("mappings").record(programs().binary("mappings"), &args);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let ledger = read_ledger(&recording.outcome.stdout);
    assert!(ledger.values().all(|counts| counts.allocs > 100 && counts.frees > 10), "{ledger:?}");
    let report = recording.all_sites();
    assert_eq!(mapped(&report, "lost_events"), 0);
    assert_equal(&report, &ledger);
    assert_eq!(given_back(&report, ledger.keys()), given_back_of_ledger(&recording.outcome.stdout));
    assert_eq!(mapped(&report, "lost_give_backs"), 0);
    let domain = |function: &str| {
        let of = report.json["sites"].as_array().expect("an array").iter();
        let name = |site: &&Value| site["name"].as_str() == Some(function);
        of.filter(name).map(|site| site["domain"].as_str().unwrap_or("").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(domain("site_mremap(void*, unsigned long, unsigned long, int, void*)"), ["mapping"]);
}

#[test]
fn random_calls_of_one_thread_are_exact() {
    assert_exact(1, 40_000, 1);
    assert_exact(1, 40_000, 2);
}

#[test]
fn random_calls_of_eight_threads_are_exact() {
    assert_exact(8, 60_000, 3);
    assert_exact(8, 60_000, 4);
}

fn words(recording: &Recording) -> String {
    let text = analyze([] as [&str; 0], &recording.trace).stdout;
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn frames_mapped_one_by_one_are_a_leak_of_mapped_memory() {
    for (program, argument, function) in
        [("mapped_growth", "5", "map_frame"), ("own_heap", "400", "heap_alloc")]
    {
        let recording = Recorder::new(program).record(attribution().binary(program), [argument]);
        let report = recording.leaks();
        assert_eq!(report.json["growth"]["kind"], "outside-malloc", "{program}: {}", report.json["growth"]);
        assert_eq!(report.code, 1, "{program}: {}", report.json["summary"]);
        let leaks: Vec<_> = report.leaks().collect();
        assert_eq!(leaks.len(), 1, "{program}: {}", report.describe());
        assert!(leaks[0].is_in(function), "{program}: {}", report.describe());
        let site = &report.json["sites"][0];
        assert_eq!(site["domain"], "mapping", "{program}");
        let (live, resident) = (site["live_bytes"].as_u64(), site["resident_bytes"].as_u64());
        assert!(resident > live.map(|live| live / 2), "{program}: {resident:?} of {live:?}");
        let text = words(&recording);
        assert!(text.contains("growth: memory grows outside malloc"), "{program}: {text}");
        assert!(text.contains("Mapped memory (mmap and its kin"), "{program}: {text}");
    }
}

#[test]
fn calls_of_mmap_are_left_alone_with_the_heap_alone() {
    let recorder = Recorder::new("heap-alone").options(["--domains", "heap"]);
    let recording = recorder.record(attribution().binary("mapped_growth"), ["5"]);
    let report = recording.leaks();
    assert_eq!(report.json["mapped"], Value::Null);
    assert_eq!(report.json["growth"]["kind"], "outside-malloc", "{}", report.json["growth"]);
    assert_eq!(report.code, 2, "nothing of that growth was measured: {}", report.json["summary"]);
}

#[test]
fn memory_mapped_by_system_calls_is_told_with_its_name() {
    let recording = Recorder::new("raw-mapper").record(programs().binary("raw_mapper"), ["--seconds", "6"]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let report = recording.leaks();
    assert_eq!(report.json["growth"]["kind"], "outside-malloc", "{}", report.json["growth"]);
    assert_eq!(report.code, 2, "no site explains it: {}", report.json["summary"]);
    let ledger: u64 = recording.outcome.stdout.trim().parse().expect("the bytes that it mapped");
    // The collector reads the memory of the process from /proc seldom. On a busy machine, the numbers that
    // the collector read last may be some seconds old.
    let unseen = mapped(&report, "unseen_bytes").as_u64().expect("a number");
    assert!(unseen >= ledger * 4 / 10 && unseen <= ledger + (4 << 20), "{unseen} of {ledger}");
    let text = words(&recording);
    assert!(text.contains("of anonymous memory was mapped by no call that edleak saw; growing"), "{text}");
}

/// If a program reserves address space and never touches it, this address space holds no memory and is no
/// leak.
#[test]
fn reserved_address_space_is_no_leak() {
    let recording = Recorder::new("reserver").record(programs().binary("reserver"), ["--seconds", "4"]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let report = recording.all_sites();
    let site = report.sites_in("reserve").next().expect("it maps");
    assert_eq!(site.verdict, "no-leak", "{}", report.describe());
    assert!(site.counts.allocated_bytes >= 100 << 20, "{site:?}");
    assert_eq!(recording.leaks().code, 0, "{}", report.json["summary"]);
}

/// A forked child begins with the mappings of its parent. If the child unmaps its copies of these mappings,
/// the mappings of the parent stay.
#[test]
fn a_forked_child_has_the_ranges_of_its_parent() {
    let recorder = Recorder::new("fork-mapped").options(["--children"]);
    let recording = recorder.record(programs().binary("fork_mapped"), [""; 0]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let live = |report: &Report| {
        let counts = report.counts_of("in_parent");
        (counts.allocs, counts.allocated_bytes - counts.freed_bytes)
    };
    assert_eq!(live(&recording.all_sites()), (4, 4 << 20));
    let traces = std::fs::read_dir(recording.dir.path()).expect("it is ours");
    let paths = traces.map(|entry| entry.expect("it is ours").path());
    let children: Vec<_> = paths
        .filter(|path| *path != recording.trace && path.extension().is_some_and(|e| e == "edl"))
        .collect();
    let [child] = children.as_slice() else { panic!("{children:?}: {}", recording.outcome.stderr) };
    let report = Report::of(child, &["--all", "--min-class", "constant"]);
    assert_eq!(
        live(&report),
        (4, 3 << 20),
        "one of the four is unmapped in the child: {}",
        report.describe()
    );
    assert_eq!(report.counts_of("in_child").allocated_bytes, 2 << 20, "{}", report.describe());
}

/// The program keeps address space mapped, but gives its pages back to the kernel, so there is no leak. The
/// report gives the number of bytes that the program gave back.
#[test]
fn memory_given_back_is_told_beside_its_site() {
    let recording = Recorder::new("gives-back").record(programs().binary("gives_back"), ["--seconds", "4"]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let calls: u64 = recording.outcome.stdout.trim().parse().expect("the number of calls");
    let report = recording.all_sites();
    let site = report.sites_in("region").next().expect("it maps");
    assert_eq!(site.given_back, (calls, calls * ((1 << 20) - 4096)));
    assert_eq!(site.verdict, "no-leak", "{}", report.describe());
    assert_eq!(mapped(&report, "given_back_calls"), calls);
    let text = words(&recording);
    assert!(text.contains(&format!("were given back with madvise in {calls} calls")), "{text}");
    let page = analyze(["--format", "html", "--all"], &recording.trace).stdout;
    assert!(page.contains(&format!("were given back with madvise in {calls} calls")));
}

/// If a program calls madvise very often, the ring of events must keep room for the events of mmap and
/// munmap. edleak must report the number of lost madvise events.
#[test]
fn flood_of_madvise_loses_no_call_of_mmap_and_is_told() {
    let recording = Recorder::new("flood-madvise").record(programs().binary("gives_back"), ["flood"]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let calls: u64 = recording.outcome.stdout.trim().parse().expect("the number of calls");
    let report = recording.all_sites();
    let site = report.sites_in("region").next().expect("it maps");
    assert_eq!((site.counts.allocs, site.counts.allocated_bytes), (101, 101 << 20), "{}", report.describe());
    let lost = mapped(&report, "lost_give_backs").as_u64().expect("a number");
    assert_eq!(site.given_back.0 + lost, calls, "each call is counted or told as lost");
    assert_eq!(mapped(&report, "lost_events"), 0);
    if lost > 0 {
        let text = words(&recording);
        assert!(text.contains("of madvise lost") && text.contains("at least"), "{text}");
    }
}
