//! Decides which sites are listed, and whether the build may pass.
//!
//! The gate applies its rules in this order: first class and confidence, then suppressions, the baseline, and
//! the budget. For each rule, the summary shows the number of leaks that the rule removes from the report.

use crate::analysis::Analysis;
use crate::baseline::Baseline;
use crate::per_mark::PerMarkOptions;
use crate::site::{Domain, JudgedSite, Kind, Standing};
use crate::suppressions::Suppressions;
use crate::uncounted;
use edleak_model::classify::{Confidence, LEAST_POINTS, Verdict};
use edleak_model::growth_class::Class;
use edleak_model::growth_kind::GrowthKind;
use edleak_text::units;

/// The result is undecided if the undecided sites hold more than this share of the live bytes, and also more
/// bytes than `UNDECIDED_BYTES`.
const UNDECIDED_SHARE: f64 = 0.05;
/// The result is undecided if the number of pool events that the recorder lost is more than this share of the
/// number of counted objects.
const LOST_SHARE: f64 = 0.05;
/// Undecided sites do not make the result undecided if all of them together hold no more than this number of
/// bytes.
const UNDECIDED_BYTES: f64 = 4096.0;

/// The report mentions missing slices if more than this share of the record has no slices.
pub const MUCH_MISSING: f64 = 0.05;
/// Greatest share of the record that one gap without slices may take. If the longest gap is longer than this
/// share of the record, the result is undecided, because the gap may hide a leak. A gap of a fifth of the
/// record lowers the accuracy of the verdicts (F1) by two and a half percentage points (`replay/gap.rs`).
/// Several short gaps do not hide a leak, because the slices between the gaps still show its growth.
const LONG_GAP: f64 = 0.2;

/// The options of the gate.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The lowest class of leaks that are listed. If `min_class` is below `linear`, the list also contains
    /// sites that grow but do not leak.
    pub min_class: Class,
    /// Whether to list only leaks with the confidence `Strict`.
    pub strict: bool,
    /// Whether to list every site.
    pub all: bool,
    /// The gate tolerates all leaks of a recording if the sum of their rates is no more than this rate.
    pub budget_bytes_per_s: Option<f64>,
    /// The leaks of an earlier recording.
    pub baseline: Option<Baseline>,
    /// The suppression rules, which name leaks that the user accepts.
    pub suppressions: Suppressions,
    /// The marks whose iterations are judged; `None`: the sites are judged by time.
    pub per_mark: Option<PerMarkOptions>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            min_class: Class::Linear,
            strict: false,
            all: false,
            budget_bytes_per_s: None,
            baseline: None,
            suppressions: Suppressions::default(),
            per_mark: None,
        }
    }
}

/// The result of the analysis for the build.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// The recording was judged, and no leak is reported.
    Clean,
    /// The recording does not contain enough evidence for a verdict, so it may hide a leak.
    Undecided,
    /// The gate reports at least one leak.
    Leaks,
}

/// The effect of a suppression rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RuleUse {
    /// The suppression rule matched no leak.
    Unused,
    /// The suppression rule matched at least one leak, and hid all leaks that it matched.
    Used,
    /// In one of the recordings, the leaks that the rule matched exceeded the rule's budget, so the gate
    /// reports these leaks.
    Exceeded,
}

impl Outcome {
    /// The exit code of edleak-analyze for this result.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Leaks => 1,
            Self::Undecided => 2,
        }
    }
}

impl Policy {
    /// Whether the site is a leak of the class and confidence that the user asked for. The analyzer looks up
    /// the symbols of a leak for which the result is true, because later rules of the gate (such as
    /// suppressions) compare names.
    pub fn wants_leak(&self, site: &JudgedSite) -> bool {
        site.is_leak()
            && site.judgement.class >= self.min_class
            && (!self.strict || site.judgement.confidence == Some(Confidence::Strict))
    }

    /// Whether the options ask for this site in the list although the site is not a leak.
    fn wants_shown(&self, site: &JudgedSite) -> bool {
        let is_growing = !site.is_leak() && site.judgement.class >= self.min_class;
        self.all || (self.min_class < Class::Linear && is_growing)
    }

    /// Whether the site may appear in a report.
    pub fn wants(&self, site: &JudgedSite) -> bool {
        self.wants_leak(site) || self.wants_shown(site)
    }

    /// Decides for every site whether the report lists the site, and whether the site fails the build. A
    /// budget applies to each recording separately, so each recorded process may leak as much as the whole
    /// budget. Returns the effect of each suppression rule.
    pub fn apply(&self, analyses: &mut [Analysis]) -> Vec<RuleUse> {
        let mut uses = vec![RuleUse::Unused; self.suppressions.rules.len()];
        for analysis in analyses.iter_mut() {
            for site in &mut analysis.sites {
                site.standing = match () {
                    () if self.wants_leak(site) => Standing::Reported,
                    () if self.wants_shown(site) => Standing::Shown,
                    () => Standing::Unlisted,
                };
            }
            self.suppress(analysis, &mut uses);
            self.forgive_known(analysis);
        }
        self.spend_budget(analyses);
        uses
    }

    fn suppress(&self, analysis: &mut Analysis, uses: &mut [RuleUse]) {
        let mut hidden: Vec<Vec<usize>> = vec![Vec::new(); uses.len()];
        for (i, site) in analysis.sites.iter().enumerate() {
            if site.standing == Standing::Reported {
                let names: Vec<&str> = names_of(site);
                let own_name = site.name();
                let names = names.into_iter().chain([own_name.as_str()]);
                if let Some(rule) = self.suppressions.matching(names) {
                    hidden[rule].push(i);
                }
            }
        }
        for (rule, sites) in hidden.iter().enumerate() {
            if sites.is_empty() {
                continue;
            }
            let sum = |value: fn(&JudgedSite) -> f64| sites.iter().map(|&i| value(&analysis.sites[i])).sum();
            let leaked = sum(|site| site.judgement.leak_bytes as f64);
            let rate = sum(|site| site.judgement.rate_bytes_per_s);
            if self.suppressions.rules[rule].budget.is_none_or(|budget| budget.covers(leaked, rate)) {
                sites.iter().for_each(|&i| analysis.sites[i].standing = Standing::Suppressed(rule));
                uses[rule] = uses[rule].max(RuleUse::Used);
            } else {
                uses[rule] = RuleUse::Exceeded;
            }
        }
    }

    fn forgive_known(&self, analysis: &mut Analysis) {
        let Some(baseline) = &self.baseline else { return };
        let reported: Vec<usize> =
            (0..analysis.sites.len()).filter(|&i| analysis.sites[i].standing == Standing::Reported).collect();
        let leaks: Vec<&JudgedSite> = reported.iter().map(|&i| &analysis.sites[i]).collect();
        let (changes, _) = baseline.compare(&leaks);
        for (i, change) in reported.into_iter().zip(changes) {
            if change.is_known() {
                analysis.sites[i].standing = Standing::InBaseline;
            }
        }
    }

    fn spend_budget(&self, analyses: &mut [Analysis]) {
        let Some(budget) = self.budget_bytes_per_s else { return };
        let reported = |site: &&mut JudgedSite| site.standing == Standing::Reported;
        for analysis in analyses {
            let reported_now: Vec<&JudgedSite> =
                analysis.sites.iter().filter(|site| site.standing == Standing::Reported).collect();
            // Objects of pools are in the heap or in mapped memory. So the bytes of a pool are also counted
            // at a site of the heap or of mapped memory, and the leak rates of pools must not be added to the
            // leak rates of other sites. But a pool may also hand out memory that it took from malloc long
            // ago, so the pools may leak although no other site leaks. So the rate of the pools and the rate
            // of all other sites must each be within the budget.
            let rate_of = |is_pool: bool| -> f64 {
                let sites = reported_now.iter().filter(|site| (site.domain() == Domain::Pool) == is_pool);
                sites.map(|site| site.judgement.rate_bytes_per_s).sum()
            };
            if rate_of(false).max(rate_of(true)) <= budget {
                analysis
                    .sites
                    .iter_mut()
                    .filter(reported)
                    .for_each(|site| site.standing = Standing::Tolerated);
            }
        }
    }
}

/// Every name of the site with which the patterns of suppressions are compared.
fn names_of(site: &JudgedSite) -> Vec<&str> {
    let frames = site.frames().filter_map(|frame| frame.frame);
    let functions = frames.clone().filter_map(|frame| frame.function.as_deref());
    let files = frames.filter_map(|frame| frame.file.as_deref());
    let modules = site.stack.iter().filter_map(|address| address.module.as_deref());
    functions.chain(files).chain(modules).collect()
}

/// The result of one judged recording for the build.
pub fn outcome(analysis: &Analysis) -> Outcome {
    if analysis.sites.iter().any(|site| site.standing == Standing::Reported) {
        return Outcome::Leaks;
    }
    if too_little(analysis).is_some() { Outcome::Undecided } else { Outcome::Clean }
}

/// If the recording does not suffice for a verdict, the reason and the remedy; `None`: the recording
/// suffices.
pub fn too_little(analysis: &Analysis) -> Option<String> {
    let slices = analysis.header.judged_slices;
    if analysis.summary.unrecorded_images > 0 {
        return Some(format!(
            "{} not recorded: out of reach, or one of too many that began at once (record it by itself, or start fewer at a time)",
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
                "no allocation was seen (does the program bring its own malloc, is it linked statically, or does it go on in a child \
                 process, which `edleak-record --children` records?)"
                    .into()
            }
        });
    }
    if analysis.header.is_replaced {
        return Some(
            "the process executed a program that was not recorded (record that program itself: it must inherit LD_PRELOAD and EDLEAK_SESSION, and be linked dynamically)"
                .into(),
        );
    }
    if let Some(per_mark) = &analysis.per_mark {
        // Verdicts by marks are only about memory that the recorder counted, so an uncounted allocator still
        // makes the result undecided.
        let uncounted = || {
            uncounted_allocator(analysis)
                .or_else(|| uncounted::undecided_reason(&analysis.uncounted_functions, &analysis.growth))
        };
        if let Some(why) = unrecorded_work(analysis).or_else(uncounted) {
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
            "{} too few for a verdict, {LEAST_POINTS} are the least (record longer, or with a shorter `--period`)",
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
            "no slice was taken for {:.0} % of the record in one piece, which may hide a leak (was the recorder stopped or starved? record again)",
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
            "the recorder lost {} of pools and counted {}, which may hide a leak (let only slow pools report, or record with \
             `--domains heap,mapping`)",
            units::plural(lost, "event", "events"),
            units::plural(counted, "object", "objects")
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

/// If the recording does not show where the process grew, the reason: the growth was in child processes,
/// outside malloc, or spread over so many sites that edleak can judge none of them.
fn unmeasured(analysis: &Analysis) -> Option<String> {
    if let Some(why) = unrecorded_work(analysis) {
        return Some(why);
    }
    if let Some(unexplained) = analysis.unexplained {
        return Some(format!(
            "{} that each grew only for a moment hold {} more than at the start, and together they grow like a leak, which no site explains \
             (see them with `--all`, and record again with `--watch` for one of them)",
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
    if growth.kind != GrowthKind::Outside || !growth.resident_goes_on || is_explained(analysis) {
        return None;
    }
    let remedy = match analysis.own_heaps.as_slice() {
        [] => "find the calls of mmap with `strace -e trace=%memory -k`".to_owned(),
        heaps => {
            heaps.iter().map(|heap| format!("{}: {}", heap.name, heap.remedy)).collect::<Vec<_>>().join("; ")
        }
    };
    Some(format!(
        "resident memory grew from {} to {}, and not through malloc, and no site that maps memory explains the growth ({remedy})",
        size(growth.resident_from_bytes),
        size(growth.resident_to_bytes)
    ))
}

/// Returns a sentence for the user if child processes did the work and were not recorded. The sentence says
/// why the recording shows nothing.
fn unrecorded_work(analysis: &Analysis) -> Option<String> {
    let has_children = analysis.summary.unrequested_children > 0;
    let is_idle = || analysis.children_did_the_work || did_nothing_after_the_start(analysis);
    (has_children && is_idle()).then(|| {
        "the program's child processes did the work, and they were not recorded (`edleak-record --children` records each into a trace \
         of its own)"
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
            "most of the memory of the program ({} of {}) is in no counted allocation, and the recorder did not count {} ({})",
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

/// Whether no site changed after the first quarter of the record, so that the process probably only waited.
fn did_nothing_after_the_start(analysis: &Analysis) -> bool {
    const COLUMNS: usize = 40;
    analysis.sites.iter().all(|site| {
        let levels = site.levels.at(COLUMNS);
        levels.get(COLUMNS / 4..).is_none_or(|rest| rest.windows(2).all(|pair| pair[0] == pair[1]))
    })
}
