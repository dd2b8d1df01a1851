//! Tests to which function edleak attributes memory in difficult cases: modules are loaded and unloaded, code
//! belongs to no module, or one bug leaks at many sites.

use edleak_tests::analyze::analyze;
use edleak_tests::programs::attribution;
use edleak_tests::record::{Recorder, Recording};
use edleak_tests::report::{Report, Site};

/// Records a program of tests/programs/attribution. The working directory contains the plugins of the
/// program.
fn recorded(name: &str, options: &[&str], args: &[&str]) -> Recording {
    let recorder = Recorder::new(name).options(options).cwd(attribution().binaries());
    let recording = recorder.record(attribution().binary(name), args);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    recording
}

#[test]
fn plugins_that_take_turns_at_one_address_are_one_site_each() {
    let recording = recorded("plugin_host", &[], &["300"]);
    let all = recording.all_sites();
    for (library, bytes) in [("libplug_a.so", 700), ("libplug_b.so", 1900)] {
        let in_library = |site: &&edleak_tests::report::Site| {
            site.is_in("load_config") && site.stack[0].module.ends_with(library)
        };
        let sites: Vec<_> = all.sites.iter().filter(in_library).collect();
        assert_eq!(sites.len(), 1, "{library}:\n{}", all.describe());
        let counts = &sites[0].counts;
        assert_eq!((counts.allocs, counts.allocated_bytes), (150, 150 * bytes), "{library}");
        assert_eq!(sites[0].verdict, "leak", "{library}:\n{}", all.describe());
    }
    assert_eq!(recording.leaks().code, 1);
}

#[test]
fn stacks_of_plugins_that_take_turns_stay_apart() {
    let recording = recorded("plugin_host", &["--watch", "*"], &["200"]);
    let all = recording.all_sites();
    for (library, bytes) in [("libplug_a.so", 700), ("libplug_b.so", 1900)] {
        let stacks = all.sites.iter().filter(|site| site.kind == "stack" && site.is_in("load_config"));
        let stacks: Vec<_> = stacks.filter(|site| site.stack[0].module.ends_with(library)).collect();
        let allocs: u64 = stacks.iter().map(|site| site.counts.allocs).sum();
        let allocated: u64 = stacks.iter().map(|site| site.counts.allocated_bytes).sum();
        assert_eq!((allocs, allocated), (100, 100 * bytes), "{library}:\n{}", all.describe());
        // The second frame of a stack must be in the same plugin as the first frame. A stack may lack the
        // second frame: if the program closes a plugin soon after loading it, edleak may not yet have the
        // unwind rules for the plugin's code, and the stack then ends at the plugin's first frame.
        let is_own = |site: &&Site| site.stack.get(1).is_none_or(|frame| frame.module.ends_with(library));
        assert!(stacks.iter().all(is_own), "{library}");
    }
}

#[test]
fn leaks_of_an_unloaded_plugin_keep_its_name() {
    let recording = recorded("unloaded_plugin", &[], &[]);
    let mut addresses = recording.outcome.stdout.lines();
    assert_eq!(addresses.next(), addresses.next(), "both plugins lie at one address, or nothing is tested");
    let all = recording.all_sites();
    let in_library = |function: &str, library: &str| {
        let sites = all.sites_in(function).filter(|site| site.stack[0].module.ends_with(library));
        sites.map(|site| (site.counts.allocs, site.counts.allocated_bytes)).collect::<Vec<_>>()
    };
    assert_eq!(in_library("leaky", "libunloaded_a.so"), [(1000, 1_000_000)], "{}", all.describe());
    assert_eq!(in_library("innocent", "libunloaded_b.so"), [(1, 16)], "{}", all.describe());
}

#[test]
fn memory_in_arenas_is_retained_by_the_allocator() {
    let recording = recorded("arenas", &[], &["320"]);
    let report = recording.leaks();
    assert_eq!(report.json["growth"]["kind"], "retained", "{}", report.json["growth"]);
    let sentence = report.json["growth"]["sentence"].as_str().expect("there is one");
    assert!(sentence.contains("arenas other than the main one (try MALLOC_ARENA_MAX=2"), "{sentence}");
    assert_ne!(report.code, 1, "{}", report.describe());
}

#[test]
fn a_launcher_whose_child_did_the_work_is_undecided() {
    let dir = edleak_tests::temp::TempDir::new("launcher");
    let script = dir.join("launcher.sh");
    std::fs::write(&script, "\"$@\"\necho stopped\n").expect("writable");
    let service = attribution().binary("generated_code");
    let launch = |options: &[&str], clean: bool| {
        let mut arguments = vec![script.clone().into_os_string()];
        if clean {
            arguments.extend(["env", "-i"].map(Into::into));
        }
        arguments.extend([service.clone().into_os_string(), "150".into()]);
        Recorder::new("launcher").options(options).record("sh", arguments)
    };
    // Without `--children`, edleak records only the shell, but a child of the shell does the work. If `clean`
    // is true, the child also has no LD_PRELOAD.
    for clean in [false, true] {
        let recording = launch(&[], clean);
        let report = recording.leaks();
        assert_eq!(report.code, 2, "without its environment: {clean}: {}", report.json["summary"]);
        let why = report.json["summary"]["too_little"].as_str().expect("a reason");
        assert!(why.contains("--children"), "{why}");
    }
}

#[test]
fn generated_code_is_one_site_and_a_leak() {
    let recording = recorded("generated_code", &[], &["250"]);
    let report = recording.leaks();
    let leaks: Vec<_> = report.leaks().collect();
    assert_eq!((report.code, leaks.len()), (1, 1), "{}", report.describe());
    assert_eq!(leaks[0].stack[0].function, "generated code");
    assert_eq!((leaks[0].counts.allocs, leaks[0].counts.allocated_bytes), (1000, 600_000));
    let text = analyze([] as [&str; 0], &recording.trace).stdout;
    assert!(text.contains("   generated code\n"), "{text}");
}

/// Returns four values for each entry in the report's list of leaks: its name, its leaked bytes, its leaked
/// allocations, and the number of sites that it joins.
fn findings(report: &Report) -> Vec<(String, u64, u64, usize)> {
    let findings = report.json["findings"].as_array().expect("`findings` is an array").iter();
    let all: Vec<_> = findings
        .map(|finding| {
            let number =
                |field: &str| finding[field].as_u64().unwrap_or_else(|| panic!("{field} of {finding}"));
            let name = finding["name"].as_str().expect("a name").to_owned();
            let places = finding["parts"].as_array().expect("parts").len();
            (name, number("leak_bytes"), number("leak_count"), places)
        })
        .collect();
    assert_eq!(report.summary("leaks"), all.len() as u64, "the number said is the number listed");
    all
}

/// The number that the program printed after `ledger: `. The program counts its own allocations.
fn ledger(recording: &Recording) -> u64 {
    let line = recording.outcome.stdout.lines().find_map(|line| line.strip_prefix("ledger: "));
    let number = line.and_then(|line| line.split(' ').next()).expect("a ledger");
    number.parse().expect("a number")
}

#[test]
fn one_mistake_at_many_sites_is_one_finding_with_its_parts() {
    for options in [&[][..], &["--watch", "*"]] {
        let recording = recorded("one_bug_many_sites", options, &["300"]);
        let report = recording.leaks();
        let found = findings(&report);
        let (first, bytes, _, places) = &found[0];
        assert!(first == "serve_one(bool)" && *places > 20, "{options:?}: {found:?}");
        let all: u64 = found.iter().map(|(_, bytes, ..)| bytes).sum();
        assert!(*bytes as f64 > 0.97 * all as f64, "{options:?}: {found:?}");
        // The allocations of SSL objects in the listed leak must be about as many as the program counted.
        let objects = ledger(&recording);
        let parts = report.json["findings"][0]["parts"].as_array().expect("parts");
        let ssl =
            parts.iter().find(|part| part["name"] == "SSL_new" || part["name"] == "accept_connection()");
        let count = ssl.and_then(|part| part["leak_count"].as_u64()).expect("the object itself is a part");
        // On a busy machine, the program may allocate its first objects before edleak can walk the stacks of
        // these allocations.
        assert!(count.abs_diff(objects) <= 3 + objects / 10, "{count} of {objects} SSL objects");
        // The formats sarif, junit and github must list every leak once. The text report must print frames
        // that several sites share only once.
        let text = analyze([] as [&str; 0], &recording.trace).stdout;
        assert!(text.contains(" places grow together by ") && text.lines().count() < 200, "{text}");
        for format in ["sarif", "junit", "github"] {
            let out = analyze(["--format", format], &recording.trace).stdout;
            let results = ["\"ruleId\"", "<failure", "::error"].map(|result| out.matches(result).count());
            assert_eq!(results.iter().sum::<usize>(), found.len(), "{format}: {out}");
            assert!(out.contains("grow together"), "{format}: {out}");
        }
    }
}

#[test]
fn a_pool_that_one_caller_leaks_through_is_not_blamed() {
    for options in [["--watch", "pool_get"], ["--watch", "*"]] {
        let recording = recorded("pool_get", &options, &["600", "2"]);
        let found = findings(&recording.leaks());
        let [(name, bytes, count, 1)] = found.as_slice() else { panic!("{found:?}") };
        let leaked = ledger(&recording);
        assert_eq!(name, "open_session");
        // Objects that exist at the first slice do not count as growth. On a busy machine, the program may
        // have allocated a few more objects than usual before the first slice.
        let most = 3 + leaked / 50;
        assert!(count.abs_diff(leaked) <= most, "{found:?} of {leaked}");
        assert!(bytes.abs_diff(300 * leaked) <= 300 * most, "{found:?} of {leaked}");
        let text = analyze([] as [&str; 0], &recording.trace).stdout;
        assert!(text.contains("   open_session at ") && text.contains("   through pool_get\n"), "{text}");
    }
}

#[test]
fn two_mistakes_that_share_nothing_but_main_are_two_findings() {
    for options in [&[][..], &["--watch", "*"]] {
        let recording = recorded("two_bugs", options, &["300"]);
        let mut found = findings(&recording.leaks());
        found.sort();
        let names: Vec<_> = found.iter().map(|(name, _, _, places)| (name.as_str(), *places)).collect();
        assert_eq!(names, [("open_log", 1), ("read_config", 1)], "{options:?}");
        for (name, bytes, count, _) in &found {
            let size = if name == "open_log" { 700 } else { 120 };
            // The growth does not contain the few allocations that the program may make before the recording
            // writes its first slice.
            assert!(bytes.abs_diff(300 * size) <= 12 * size && count.abs_diff(300) <= 12, "{found:?}");
        }
    }
}

/// For a new thread, libc allocates inside the loader. edleak must count the allocation for a new thread at
/// the caller of pthread_create.
#[test]
fn threads_that_nobody_joins_are_a_leak_of_the_caller_of_pthread_create() {
    let recording = recorded("forgotten_threads", &[], &["200"]);
    let all = recording.all_sites();
    assert_eq!(all.counts_of("start_and_forget").allocs, 200, "{}", all.describe());
    let report = recording.leaks();
    let leaks: Vec<_> = report.leaks().collect();
    assert_eq!((report.code, leaks.len()), (1, 1), "{}", report.describe());
    assert!(leaks[0].is_in("start_and_forget"), "{}", report.describe());
    let text = analyze([] as [&str; 0], &recording.trace).stdout;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("neither joined nor detached"), "{text}");
}
