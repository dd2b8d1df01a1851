//! Finds the reasons why a recording does not suffice for a verdict. Such a recording is undecided, so the
//! gate does not pass.

use crate::analysis::Analysis;
use crate::site::{Domain, JudgedSite, Kind, Standing};
use crate::uncounted;
use edleak_model::classify::{Confidence, LEAST_POINTS, Verdict};
use edleak_model::growth_kind::GrowthKind;
use edleak_text::units;

/// The result is undecided if the undecided sites hold more than this share of the live bytes, and also more
/// bytes than `UNDECIDED_BYTES`.
const UNDECIDED_SHARE: f64 = 0.05;
/// The result is undecided if the number of pool events that the recorder lost is more than this share of the
/// number of counted objects.
const LOST_SHARE: f64 = 0.05;
/// The result is undecided if the number of allocations that the library could not count is more than this
/// share of the number of counted allocations. An allocation that is not counted shows in no curve.
const UNTRACKED_SHARE: f64 = 0.001;
/// Undecided sites do not make the result undecided if all of them together hold no more than this number of
/// bytes.
const UNDECIDED_BYTES: f64 = 4096.0;

/// Greatest share of the record that one gap without slices may take. If the longest gap is longer than this
/// share of the record, the result is undecided, because the gap may hide a leak. A gap of a fifth of the
/// record lowers the accuracy of the verdicts (F1) by two and a half percentage points (`replay/gap.rs`).
/// Several short gaps do not hide a leak, because the slices between the gaps still show its growth.
const LONG_GAP: f64 = 0.2;

/// If the recording does not suffice for a verdict, the reason and the remedy; `None`: the recording
/// suffices.
pub fn too_little(analysis: &Analysis) -> Option<String> {
    if let Some(why) = &analysis.header.undecided {
        return Some(why.clone());
    }
    let slices = analysis.header.judged_slices;
    if analysis.summary.unrecorded_images > 0 {
        return Some(format!(
            "{} not recorded: out of reach, or one of too many that began at once (record it by itself, or \
             start fewer at a time)",
            match analysis.summary.unrecorded_images {
                1 => "a child process was".to_owned(),
                many => format!("{} child processes were", edleak_text::units::count(many)),
            }
        ));
    }
    let is_of_heap = |site: &&JudgedSite| site.domain() == Domain::Heap;
    if !analysis.sites.iter().any(|site| is_of_heap(&site) || site.is_leak()) {
        return Some(match slices {
            0 => "the recording holds no slice (was it ended before its first period?)".into(),
            _ => {
                "no allocation was seen (does the program bring its own malloc, is it linked statically, or \
                 does it go on in a child process, which `edleak-record --children` records?)"
                    .into()
            }
        });
    }
    if analysis.header.is_replaced {
        return Some(
            "the process executed a program that was not recorded (record that program itself: it must \
             inherit LD_PRELOAD and EDLEAK_SESSION, and be linked dynamically)"
                .into(),
        );
    }
    if let [first, ..] = analysis.header.earlier_traces.as_slice() {
        return Some(format!(
            "the process executed another program before, and its recording is in another trace (give \
             `{first}` to the same edleak-analyze)"
        ));
    }
    if analysis.header.pid != 0 && analysis.header.end.is_none() {
        return Some(
            "the recording was cut short, or still runs, and the program may have leaked after its last \
             slice (let the recording end, for example with `--duration`)"
                .into(),
        );
    }
    if let Some(per_mark) = &analysis.per_mark {
        // Verdicts by marks are only about memory that the recorder counted, so other memory that grows still
        // makes the result undecided.
        if let Some(why) = unmeasured(analysis) {
            return Some(why);
        }
        // In a trace of an earlier version of edleak, the slices of marks have no sites of pools. So with a
        // trace of an earlier version, sites of pools are judged by time, and undecided sites of pools can
        // make the result undecided.
        return per_mark
            .undecided(&analysis.sites, &analysis.marks)
            .or_else(|| lost_objects(analysis))
            .or_else(|| much_undecided(analysis, Domain::Pool));
    }
    if slices < LEAST_POINTS && analysis.sites.iter().any(|site| site.judgement.verdict == Verdict::Undecided)
    {
        return Some(format!(
            "{} too few for a verdict, {LEAST_POINTS} are the least (record longer, or with a shorter \
             `--period`)",
            if slices == 1 { "1 slice is".to_owned() } else { format!("{slices} slices are") }
        ));
    }
    // Where slices are missing, the analysis draws a straight line from the slice before to the slice after.
    // So a leak that grew only during a gap without slices would not be visible.
    let gap = analysis.summary.longest_gap_share;
    let is_strict = |site: &JudgedSite| {
        let passes =
            matches!(site.standing, Standing::Tolerated | Standing::InBaseline | Standing::Suppressed(_));
        site.judgement.confidence == Some(Confidence::Strict) && !passes
    };
    if gap > LONG_GAP && !analysis.sites.iter().any(is_strict) {
        return Some(format!(
            "no slice was taken for {:.0} % of the record in one piece, which may hide a leak (was the \
             recorder stopped or starved? record again)",
            100.0 * gap
        ));
    }
    if let Some(why) = unmeasured(analysis).or_else(|| lost_objects(analysis)) {
        return Some(why);
    }
    // The size of a mapping is address space and not memory. So an undecided site that maps memory makes the
    // result undecided only if memory outside malloc grows.
    let grows_outside = analysis.growth.kind == GrowthKind::Outside && analysis.growth.resident_goes_on;
    let domains = if grows_outside { &Domain::ALL[..] } else { &[Domain::Heap, Domain::Pool] };
    domains.iter().find_map(|domain| much_undecided(analysis, *domain))
}

/// Returns a sentence for the user if events of pools that the recorder lost may hide a leak. Events of pools
/// that the recorder lost may hide a leak if their number is more than a twentieth of the number of counted
/// objects.
fn lost_objects(analysis: &Analysis) -> Option<String> {
    let lost = analysis.pools.as_ref()?.lost_events;
    let of_pools = analysis.sites.iter().filter(|site| site.domain() == Domain::Pool);
    let counted: u64 = of_pools.filter_map(|site| site.totals.allocs).sum();
    (lost as f64 > LOST_SHARE * counted as f64).then(|| {
        format!(
            "the recorder lost {} of pools and counted {}, which may hide a leak (let only slow pools \
             report, or record with `--domains heap,mapping`)",
            units::plural(lost, "event", "events"),
            units::plural(counted, "object", "objects")
        )
    })
}

/// Returns a sentence for the user if allocations that the library could not count may hide a leak.
fn untracked_allocations(analysis: &Analysis) -> Option<String> {
    let (untracked, counted) = (analysis.summary.untracked_allocs, analysis.summary.allocs);
    (untracked as f64 > UNTRACKED_SHARE * counted as f64).then(|| {
        format!(
            "{} could not be counted, because the system gave edleak's library no memory for its table, \
             which may hide a leak (raise the limits of the program: `ulimit -v`, `ulimit -d`, \
             vm.max_map_count)",
            units::plural(untracked, "allocation", "allocations")
        )
    })
}

/// If the undecided sites of a domain make the result undecided, the reason and the remedy. The function
/// compares the bytes of undecided sites only with the live bytes of the same domain, because address space
/// may be a thousand times as large as the heap.
fn much_undecided(analysis: &Analysis, domain: Domain) -> Option<String> {
    let of_domain = || analysis.sites.iter().filter(|site| site.domain() == domain);
    let undecided = || of_domain().filter(|site| site.judgement.verdict == Verdict::Undecided);
    let held: f64 = undecided().map(in_question).sum();
    let live: f64 = of_domain().map(JudgedSite::judged_bytes).sum();
    let is_much = held > UNDECIDED_BYTES && held > UNDECIDED_SHARE * live;
    is_much.then(|| {
        let longest = undecided().filter_map(|site| site.judgement.record_longer_s).fold(0.0, f64::max);
        let quiet = undecided().filter(|site| site.judgement.open_bytes > 0);
        let quiet = quiet.max_by(|a, b| a.judgement.open_bytes.cmp(&b.judgement.open_bytes));
        let remedy = match quiet {
            Some(site) => format!(
                "{}; end the recording while the program still works, for example with `--duration`",
                site.judgement.why.first().map_or("the program stopped working", String::as_str)
            ),
            None if longest > 0.0 => format!("record {} longer", edleak_text::units::duration(longest)),
            None => "record longer".into(),
        };
        format!("sites that hold {} are undecided ({remedy})", edleak_text::units::bytes(held))
    })
}

/// For an undecided site, the number of its bytes that may have leaked.
///
/// The result is the site's live bytes at the end of the judged record. If the site has fewer live bytes at
/// the end of the whole recording, the result is this smaller number, because freed memory has not leaked. If
/// the site grew for as long as the program had work, and stopped growing when the program stopped working,
/// the function returns the site's [`open_bytes`](edleak_model::classify::Judgement::open_bytes) instead.
fn in_question(site: &JudgedSite) -> f64 {
    match site.judgement.open_bytes {
        0 => site.judged_bytes().min(site.totals.live_bytes as f64),
        open => open as f64,
    }
}

/// If the recording does not show where the process grew, the reason: the growth was in child processes, in
/// allocations that were not counted, outside malloc, or spread over so many sites that edleak can judge none
/// of them.
fn unmeasured(analysis: &Analysis) -> Option<String> {
    if let Some(why) = unrecorded_work(analysis).or_else(|| untracked_allocations(analysis)) {
        return Some(why);
    }
    if let Some(unexplained) = analysis.unexplained {
        return Some(format!(
            "{} that each grew only for a moment hold {} more than at the start, and together they grow like \
             a leak, which no site explains (see them with `--all`, and record again with `--watch` for one \
             of them)",
            units::plural(unexplained.sites, "site", "sites"),
            size(unexplained.bytes)
        ));
    }
    if let Some(why) = uncounted_allocator(analysis)
        .or_else(|| uncounted::undecided_reason(&analysis.uncounted_functions, &analysis.growth))
    {
        return Some(why);
    }
    let growth = &analysis.growth;
    if let Some(uncounted) = &growth.uncounted
        && growth.resident_goes_on
        && growth.may_be_uncounted()
        && !is_explained(analysis)
    {
        return Some(format!(
            "resident memory grew from {} to {}, and {uncounted} (see docs/allocators.md)",
            size(growth.resident_from_bytes),
            size(growth.resident_to_bytes)
        ));
    }
    if growth.kind == GrowthKind::Unclear && growth.are_kinds_old && growth.resident_goes_on {
        return Some(format!(
            "resident memory grew from {} to {}, and the recorder read the sizes of the mappings too seldom \
             to tell whether the allocator retains it (record for longer)",
            size(growth.resident_from_bytes),
            size(growth.resident_to_bytes)
        ));
    }
    if growth.kind != GrowthKind::Outside || !growth.resident_goes_on || is_explained(analysis) {
        return None;
    }
    let remedy = match analysis.own_heaps.as_slice() {
        [] => growth.outside_remedy().to_owned(),
        heaps => {
            heaps.iter().map(|heap| format!("{}: {}", heap.name, heap.remedy)).collect::<Vec<_>>().join("; ")
        }
    };
    Some(format!(
        "resident memory grew from {} to {}, and not through malloc, and no site that maps memory explains \
         the growth ({remedy})",
        size(growth.resident_from_bytes),
        size(growth.resident_to_bytes)
    ))
}

/// Returns a sentence for the user if child processes did the work and were not recorded. The sentence says
/// why the recording shows nothing.
fn unrecorded_work(analysis: &Analysis) -> Option<String> {
    let has_children = analysis.summary.unrequested_children > 0;
    // A program that only waits before it executes the next one, such as a shell with `sleep`, does nothing.
    let did_nothing = || !analysis.header.is_executed && did_nothing_between_start_and_end(analysis);
    let is_idle = || analysis.children_did_the_work || did_nothing();
    (has_children && is_idle()).then(|| {
        "the program's child processes did the work, and they were not recorded (`edleak-record --children` \
         records each into a trace of its own)"
            .into()
    })
}

/// Returns a sentence for the user if most of the memory is in no counted allocation, and the process has an
/// allocator that the recorder did not count. The sentence says why the recording shows little of the memory.
fn uncounted_allocator(analysis: &Analysis) -> Option<String> {
    let growth = &analysis.growth;
    let heap = analysis.own_heaps.iter().find(|heap| heap.uncounted.is_some())?;
    uncounted::hidden_bytes(growth).map(|hidden| {
        format!(
            "most of the memory of the program ({} of {}) is in no counted allocation, and the recorder did \
             not count {} ({})",
            size(hidden),
            size(growth.resident_to_bytes),
            heap.name,
            heap.remedy
        )
    })
}

/// Whether sites that map memory explain growth outside malloc. The growth is explained if two conditions
/// hold: recorded calls mapped the memory that grew outside malloc, and at least half of this growth belongs
/// to sites that leak, to undecided sites, or to allocators whose allocations are all counted.
fn is_explained(analysis: &Analysis) -> bool {
    let growth = &analysis.growth;
    if !growth.is_seen_outside() {
        return false;
    }
    let is_counted = |site: &JudgedSite| {
        let module = site.stack.first().and_then(|address| address.module_id);
        let has_uncounted =
            analysis.uncounted_functions.iter().any(|functions| Some(functions.module_id) == module);
        !has_uncounted
            && analysis.own_heaps.iter().all(|heap| heap.uncounted.is_none() || heap.uncounted != module)
    };
    let mapping = || analysis.sites.iter().filter(|site| site.domain() == Domain::Mapping);
    // For a site that maps memory, the trace counts address space, but only resident memory explains growth
    // of the process. The function assumes that the resident share of the growth equals the resident share of
    // the whole site at the end.
    let resident = |site: &JudgedSite| {
        let live = site.totals.live_bytes.max(1) as f64;
        let share = site.resident_bytes.map_or(1.0, |resident| (resident as f64 / live).min(1.0));
        share * site.growth().max(0.0)
    };
    let of_allocators: f64 =
        mapping().filter(|site| site.kind == Kind::Allocator && is_counted(site)).map(resident).sum();
    let of_sites: f64 =
        mapping().filter(|site| site.judgement.verdict != Verdict::NoLeak).map(resident).sum();
    let grown = growth.resident_to_bytes.saturating_sub(growth.resident_from_bytes) as f64;
    of_allocators + of_sites >= 0.5 * grown
}

fn size(bytes: u64) -> String {
    units::bytes(bytes as f64)
}

/// Whether no site changed after the first quarter of the record, except in the last tenth, so that the
/// process probably only waited. A shell, for example, frees memory when the child that it waited for ends.
fn did_nothing_between_start_and_end(analysis: &Analysis) -> bool {
    const COLUMNS: usize = 40;
    const MIDDLE: std::ops::Range<usize> = COLUMNS / 4..COLUMNS - COLUMNS / 10;
    analysis.sites.iter().all(|site| {
        let levels = site.levels.at(COLUMNS);
        levels.get(MIDDLE).is_none_or(|middle| middle.windows(2).all(|pair| pair[0] == pair[1]))
    })
}
