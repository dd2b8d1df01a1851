//! Tests traces of programs that have pools of their own, and of programs with an allocator whose calls
//! edleak did not count. The tests check verdicts, JSON, text, and anonymized traces.

use crate::programs::{Ran, run};
use crate::traces::{Draft, DraftSite, Scratch, caller, constant, counters, frame, leaker, leaking};
use edleak_format::{
    Allocator, AreaBytes, AreaId, AreaKind, Counters, Mappings, MemoryArea, ModuleId, Pool, PoolId, Pools,
    Record, SiteKind, Trace, UncountedFunctions,
};
use serde_json::json;

/// A program with a pool called `requests`. The caller of the pool leaks 100 bytes in each slice, but the
/// heap memory of the pool stays constant.
fn pooled(lost_events: u64, lost_resets: u64) -> Draft {
    let pool = DraftSite {
        kind: SiteKind::Pool(PoolId(1)),
        parent: None,
        stack: vec![
            (0x3010, vec![frame("arena_alloc", "/src/arena.c", 12)]),
            (0x3020, vec![frame("remember", "/src/server.c", 24)]),
        ],
        counters: leaking,
        survivors: None,
    };
    let pools = Pools { pools: 3, lost_events, lost_resets, unknown_frees: 5 };
    let name = |id, name: &str| Record::Pool(Pool { id: PoolId(id), name: name.into() });
    Draft {
        sites: vec![caller(0x1030, "add_chunk", 60, constant), pool],
        further: vec![name(0, ""), name(1, "requests"), Record::Pools(pools)],
        ..leaker()
    }
}

fn report(draft: &Draft, options: &[&str]) -> Ran {
    let scratch = Scratch::new();
    let trace = draft.write(&scratch.path("t.edl"));
    let words = options.iter().map(|option| (*option).to_owned());
    run(words.chain([trace.to_str().expect("UTF-8").to_owned()]))
}

#[test]
fn a_leak_of_a_pool_is_judged_and_its_bytes_count_in_no_total_of_the_heap() {
    let ran = report(&pooled(0, 0), &["--format=json", "--all"]);
    let report = ran.json();
    assert_eq!(ran.code, 1, "{}", ran.err);
    let expected = json!({"name": "requests", "live_bytes": 8000, "live_count": 80});
    assert_eq!(report["pools"]["names"], json!([expected]));
    let pools = &report["pools"];
    assert_eq!(
        (&pools["pools"], &pools["sites"], &pools["live_bytes"]),
        (&json!(3), &json!(1), &json!(8000))
    );
    assert_eq!((&pools["lost_events"], &pools["unknown_frees"]), (&json!(0), &json!(5)));
    let leak = &report["sites"][0];
    assert_eq!(
        (&leak["domain"], &leak["pool"], &leak["verdict"]),
        (&json!("pool"), &json!("requests"), &json!("leak"))
    );
    assert_eq!((&leak["kind"], &leak["live_bytes"]), (&json!("pool"), &json!(8000)));
    let heap = &report["sites"][1];
    assert_eq!((&heap["domain"], &heap["pool"]), (&json!("heap"), &json!(null)));
    assert_eq!(report["summary"]["live_bytes"], 4096, "the chunk alone");
}

/// Makes the same number of allocations as [`leaking`], but leaks ten times as many bytes.
fn leaking_fast(slice: u64) -> Counters {
    Counters { allocated_bytes: 10 * leaking(slice).allocated_bytes, ..leaking(slice) }
}

// A budget is compared with the leaks of pools and with the leaks of other memory separately, because a pool
// may hand out memory that it took from the heap long before. So a small leak of the heap must not hide a
// larger leak of the pool.
#[test]
fn a_budget_holds_for_pools_and_for_other_memory_each() {
    let mut draft = pooled(0, 0);
    draft.sites[1].counters = leaking_fast;
    // The pool leaks about 10,000 bytes per second; the heap leaks 1000 bytes per second.
    for further in [None, Some(caller(0x1050, "grow_too", 44, leaking))] {
        draft.sites.truncate(2);
        draft.sites.extend(further);
        for (budget, code) in [("5KB/s", 1), ("12KB/s", 0)] {
            let ran = report(&draft, &["--budget", budget]);
            assert_eq!(ran.code, code, "{budget}: {}", ran.out);
        }
    }
}

#[test]
fn lost_events_of_a_pool_make_a_leak_undecided_if_they_may_explain_it() {
    // The pool has leaked 80 objects. If the recorder lost 40 or more events of the pool, these events
    // may have been frees, and then at most 40 objects have leaked.
    for (lost_events, lost_resets, verdict) in
        [(2, 0, "leak"), (39, 0, "leak"), (40, 0, "undecided"), (0, 1, "undecided")]
    {
        let ran = report(&pooled(lost_events, lost_resets), &["--format=json", "--all"]);
        let report = ran.json();
        let site = report["sites"].as_array().expect("an array").iter().find(|site| site["domain"] == "pool");
        let site = site.expect("the pool has a site");
        assert_eq!(site["verdict"], verdict, "{lost_events} and {lost_resets}: {}", site["why"]);
        assert_eq!(report["pools"]["lost_events"], lost_events);
        assert_eq!(ran.code, if verdict == "leak" { 1 } else { 2 }, "{}", report["summary"]);
    }
    let text = report(&pooled(40, 0), &["--all"]).out;
    assert!(text.contains("40 events were lost") || text.contains("lost 40 events"), "{text}");
}

/// A program whose resident memory grows by 1 MiB in each slice, although its heap does not grow.
fn growing_outside(further: Vec<Record>) -> Draft {
    Draft {
        sites: vec![caller(0x1030, "start", 60, constant)],
        resident: |slice| (10 + slice) << 20,
        further,
        ..leaker()
    }
}

#[test]
fn uncounted_functions_of_an_allocator_are_told_and_undecided_only_if_memory_grows() {
    let symbols = vec!["mallocx".into(), "rallocx".into()];
    let functions = Record::UncountedFunctions(UncountedFunctions { module: ModuleId(0), symbols });
    let ran = report(&growing_outside(vec![functions.clone()]), &["--format=json", "--all"]);
    let expected = json!([{"module": "leaker", "functions": ["mallocx", "rallocx"]}]);
    assert_eq!(ran.json()["uncounted_functions"], expected);
    assert_eq!(ran.code, 2, "{}", ran.json()["summary"]);
    let why = ran.json()["summary"]["too_little"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains("allocations through `mallocx`, `rallocx` of leaker are not counted"), "{why}");

    let calm = Draft { resident: |_| 10 << 20, ..growing_outside(vec![functions]) };
    let small = Draft { resident: |_| 2 << 20, ..calm };
    let ran = report(&small, &["--all"]);
    assert_eq!(ran.code, 0, "{}", ran.out);
    let text = ran.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("allocations through `mallocx`, `rallocx` of leaker are not counted"), "{text}");
}

fn uncounted_mallocx() -> Record {
    Record::UncountedFunctions(UncountedFunctions { module: ModuleId(0), symbols: vec!["mallocx".into()] })
}

const MIB: u64 = 1 << 20;

/// An area whose bytes are all resident.
fn used(bytes: u64) -> AreaBytes {
    AreaBytes { mapped_bytes: bytes, resident_bytes: bytes, ..AreaBytes::ZERO }
}

/// An area of address space in which no byte is resident.
fn reserved(bytes: u64) -> AreaBytes {
    AreaBytes { mapped_bytes: bytes, ..AreaBytes::ZERO }
}

/// A program with two sites of mapped memory: `map_frame` leaks a mapping of 1 MiB in each slice, and an
/// allocator maps 10 MiB in each slice. The heap of this program does not grow. `areas` gives the sizes of
/// these areas: all anonymous memory, the memory of allocators, the memory of each of the two sites, and all
/// counted memory.
fn with_mappings(areas: fn(u64) -> Vec<AreaBytes>, further: Vec<Record>) -> Draft {
    let of_kind = |kind, offset, name, counters| DraftSite { kind, ..caller(offset, name, 1, counters) };
    let area =
        |id, kind, name: &str| Record::MemoryArea(MemoryArea { id: AreaId(id), kind, name: name.into() });
    let mapped =
        |slice: u64| Counters { allocated_bytes: (slice + 1) * MIB, allocs: slice + 1, ..Counters::ZERO };
    let of_allocator = |slice: u64| Counters {
        allocated_bytes: 10 * (slice + 1) * MIB,
        allocs: slice + 1,
        ..Counters::ZERO
    };
    let mut records = vec![
        area(0, AreaKind::Anonymous, ""),
        area(1, AreaKind::Allocators, ""),
        area(2, AreaKind::Site, "1"),
        area(3, AreaKind::Site, "2"),
        area(4, AreaKind::Counted, ""),
        Record::Mappings(Mappings::default()),
    ];
    records.extend(further);
    Draft {
        sites: vec![
            caller(0x1030, "start", 60, constant),
            of_kind(SiteKind::Mapping, 0x1050, "map_frame", mapped),
            of_kind(SiteKind::AllocatorMapping, 0x1060, "je_extent_alloc", of_allocator),
        ],
        areas,
        resident: |slice| (2 + slice) * MIB,
        ..growing_outside(records)
    }
}

// All growth of resident memory is in the mappings of `map_frame`. The budget tolerates the leak of
// `map_frame`, so the exit code must be 0.
#[test]
fn growth_that_a_mapping_site_explains_is_decided_beside_uncounted_functions() {
    let of_site = |slice: u64| {
        let bytes = (slice + 1) * MIB;
        vec![used(bytes), used(0), used(bytes), used(0), reserved(11 * bytes)]
    };
    let draft = with_mappings(of_site, vec![uncounted_mallocx()]);
    let ran = report(&draft, &["--format=json", "--all", "--budget", "1GB/s"]);
    assert_eq!(ran.json()["growth"]["kind"], "outside-malloc", "{}", ran.json()["growth"]);
    assert_eq!(ran.code, 0, "{}", ran.json()["summary"]);
    assert_eq!(report(&draft, &[]).code, 1);
}

// The budget tolerates the leak of `map_frame`. But 1/5 of the growth is in an allocator whose calls are not
// all counted, so the verdict must be undecided.
#[test]
fn growth_of_the_allocator_with_uncounted_functions_is_undecided_beside_a_mapping_site() {
    let both = |slice: u64| {
        let of_allocators = (slice + 1) * MIB / 4;
        let of_site = (slice + 1) * MIB;
        vec![
            used(of_site + of_allocators),
            used(of_allocators),
            used(of_site),
            used(of_allocators),
            reserved(11 * of_site),
        ]
    };
    let draft = with_mappings(both, vec![uncounted_mallocx()]);
    let ran = report(&draft, &["--format=json", "--all", "--budget", "1GB/s"]);
    assert_eq!(ran.json()["growth"]["kind"], "outside-malloc", "{}", ran.json()["growth"]);
    assert_eq!(ran.code, 2, "{}", ran.json()["summary"]);
}

#[test]
fn an_allocator_is_not_said_to_retain_memory_of_its_uncounted_functions() {
    let of_allocator = |slice: u64| {
        let bytes = (slice + 1) * MIB;
        vec![used(bytes), used(bytes), used(0), used(bytes), reserved(10 * bytes + 4096)]
    };
    let first_line = |further: Vec<Record>| {
        let mut draft = with_mappings(of_allocator, further);
        draft.sites[1].counters = constant;
        let ran = report(&draft, &["--format=json"]);
        (ran.code, ran.json()["growth"].clone())
    };
    let (code, growth) = first_line(Vec::new());
    assert_eq!((code, &growth["kind"]), (0, &json!("retained")), "{growth}");
    let allocator = Record::Allocator(Allocator { module: ModuleId(0), symbol: "je_malloc".into() });
    // If edleak counts no function of an allocator, it judges the mappings of this allocator, and so finds a
    // leak (exit code 1).
    for (record, expected, clause) in [
        (uncounted_mallocx(), 2, "allocations through `mallocx` of leaker are not counted"),
        (allocator, 1, "allocations of the allocator of leaker (`je_malloc`) are not counted"),
    ] {
        let (code, growth) = first_line(vec![record]);
        assert_eq!((code, &growth["kind"]), (expected, &json!("unclear")), "{growth}");
        let sentence = growth["sentence"].as_str().unwrap_or_default();
        assert!(
            sentence
                .starts_with(&format!("resident memory grows, and {clause}, so this recording cannot tell")),
            "{sentence}"
        );
    }
}

// The program has 100 MiB of counted allocations, more than the memory that is not counted. The program's
// verdict must be undecided, although most of its memory is counted: the memory that is not counted
// grows.
#[test]
fn growth_of_an_allocator_that_is_not_counted_is_undecided_beside_a_large_heap() {
    let of_allocator = |slice: u64| {
        let bytes = (slice + 1) * MIB;
        vec![used(bytes), used(bytes), used(0), used(bytes), reserved(10 * bytes + 4096)]
    };
    let allocator = Record::Allocator(Allocator { module: ModuleId(0), symbol: "je_malloc".into() });
    let code = |further: Vec<Record>| {
        let mut draft = with_mappings(of_allocator, further);
        draft.sites[0].counters = |_| Counters { allocated_bytes: 100 * MIB, allocs: 1, ..Counters::ZERO };
        draft.sites[1].counters = constant;
        draft.sites[2].counters = constant;
        draft.resident = |slice| (102 + slice) * MIB;
        let ran = report(&draft, &["--format=json"]);
        (ran.code, ran.json()["growth"]["kind"].clone())
    };
    assert_eq!(code(Vec::new()), (0, json!("retained")));
    assert_eq!(code(vec![allocator]), (2, json!("unclear")));
}

// The allocator reserves 10 MiB of address space in each slice and uses none of it, so it cannot be the
// reason why resident memory grows.
#[test]
fn address_space_that_an_allocator_reserves_explains_no_growth() {
    let elsewhere = |slice: u64| {
        let bytes = (slice + 1) * MIB;
        vec![used(bytes), used(0), used(0), reserved(10 * bytes), reserved(10 * bytes + 4096)]
    };
    let mut draft = with_mappings(elsewhere, Vec::new());
    draft.sites[1].counters = constant;
    let ran = report(&draft, &["--format=json", "--all"]);
    assert_eq!(ran.json()["growth"]["kind"], "outside-malloc", "{}", ran.json()["growth"]);
    assert_eq!(ran.code, 2, "{}", ran.json()["summary"]);
}

// The recorder read the resident memory of the areas only once, at the start. The allocator gave the program
// much more memory than the process grew by, so the allocator may hold all of this growth.
#[test]
fn growth_that_no_reading_of_the_memory_areas_shows_is_undecided() {
    let old =
        |slice: u64| vec![used(MIB), used(MIB), used(0), used(0), reserved(10 * (slice + 1) * MIB + 4096)];
    let mut draft = with_mappings(old, Vec::new());
    draft.sites[0].counters = |slice| counters(MIB * (slice + 1), slice + 1, MIB * slice, slice);
    draft.sites[1].counters = constant;
    let ran = report(&draft, &["--format=json", "--all"]);
    assert_eq!(ran.json()["growth"]["kind"], "unclear", "{}", ran.json()["growth"]);
    assert_eq!(ran.code, 2, "{}", ran.json()["summary"]);
    let why = ran.json()["summary"]["too_little"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains("too seldom"), "{why}");
}

#[test]
fn an_anonymized_trace_has_no_name_that_the_program_chose() {
    let area =
        |id, kind, name: &str| Record::MemoryArea(MemoryArea { id: AreaId(id), kind, name: name.into() });
    let mut draft = pooled(0, 0);
    draft.further.extend([
        area(0, AreaKind::Named, "secret cache"),
        area(1, AreaKind::Unseen, "secret cache"),
        area(2, AreaKind::Unseen, ""),
        area(3, AreaKind::Site, "7"),
        Record::Allocator(Allocator { module: ModuleId(0), symbol: "secret_malloc".into() }),
        Record::UncountedFunctions(UncountedFunctions {
            module: ModuleId(0),
            symbols: vec!["secret_realloc".into()],
        }),
    ]);
    let scratch = Scratch::new();
    let (trace, hidden) = (draft.write(&scratch.path("t.edl")), scratch.path("hidden.edl"));
    let words = ["anonymize", "-o", hidden.to_str().expect("UTF-8"), trace.to_str().expect("UTF-8")];
    assert_eq!(run(words).code, 0);
    let hidden = Trace::open(&hidden).expect("a trace");
    let records = format!("{:?}", hidden.records());
    assert!(!records.contains("secret") && !records.contains("requests"), "{records}");
    let names: Vec<String> = hidden
        .records()
        .into_iter()
        .filter_map(|record| match record {
            Record::MemoryArea(area) => Some(area.name),
            _ => None,
        })
        .collect();
    assert!(names[0].starts_with("anon_") && names[0] == names[1], "equal names stay equal: {names:?}");
    assert_eq!(names[2..], ["", "7"], "names that are numbers stay");
}
