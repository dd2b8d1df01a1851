//! Phase 3: turns the series of every site of a recording into a verdict. A verdict needs no symbols, so
//! edleak looks up the symbols after all verdicts.

mod attached;
mod batch;
mod bursts;
mod families;
mod place;
mod weak_evidence;

use crate::analysis::{Analysis, Before, Header, Summary};
use crate::load::Input;
use crate::load::line_series::LineSeries;
use crate::replay::teardown::judged_grid;
use crate::replay::{Merged, Replayed, ReplayedSite, clock, replay};
use crate::site::{Domain, JudgedSite, Kind, SiteLabel, Standing, Survivor, Totals, WithStacks};
use crate::steps::Steps;
use crate::{mapped, own_heap, per_mark, pools, uncounted, unexplained};
use edleak_format::{CpuUse, EndReason, Site, SiteId, Survivors, Trace};
use edleak_model::blocks::growth_beyond_asked;
use edleak_model::classify::{Judgement, LEAST_POINTS, Model, Verdict, judge};
use edleak_model::growth_kind::{GrowthKind, ProcessGrowth, growth_of};
use edleak_model::levels::Levels;
use edleak_model::process_series::ProcessSeries;
use edleak_model::regression::leak_factor;
use edleak_model::series::Series;
use place::locate;
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Judges every site of a recording.
pub fn judge_recording(source: String, recording: &Input, model: Model) -> Analysis {
    let mut analysis = match recording {
        Input::Trace(trace) => judge_trace(source, trace, model),
        Input::Lines(lines) => judge_lines(source, lines, model),
    };
    analysis.sites.sort_by(|a, b| {
        let rank = |site: &JudgedSite| (site.is_leak(), site.judgement.rate_bytes_per_s);
        let (a_rank, b_rank) = (rank(a), rank(b));
        b_rank.0.cmp(&a_rank.0).then(b_rank.1.total_cmp(&a_rank.1)).then_with(|| a.label.cmp(&b.label))
    });
    analysis
}

fn judge_trace(source: String, trace: &Trace, model: Model) -> Analysis {
    let (start, grid) = (trace.start(), judged_grid(trace));
    let tick_s = clock::tick_ns(trace) / 1e9;
    let period_s = grid.stride_ticks as f64 * tick_s;
    let catalog: HashMap<SiteId, &Site> = trace.sites().iter().map(|site| (site.id, site)).collect();
    let merged = Merged::of(trace);
    let survivors = merged.survivors(trace);

    let mut replayed = replay(trace, &merged, grid, model == Model::LeakFactor, |replayed| {
        let mut site = judge_site(&replayed, period_s, model);
        site.survivors = survivors.get(&replayed.id).map_or_else(Vec::new, survivors_of);
        if let Some(&known) = catalog.get(&replayed.id) {
            locate(&mut site, known, trace, &merged);
        }
        site
    });
    let mut growth = growth_of(&replayed.process, replayed.turnover_bytes);
    growth.free = replayed.memory.free;
    let mut sites: Vec<JudgedSite> = std::mem::take(&mut replayed.sites);
    explain_by_small_blocks(&mut growth, &sites);
    let (uncounted_functions, own_heaps) = (uncounted::of_trace(trace), own_heap::of_trace(trace));
    if let Some(clause) = uncounted::clause(&uncounted_functions, &own_heaps) {
        growth.note_uncounted(clause);
    }
    // A verdict needs a least number of points. Only points with a slice count, because the values of all
    // other points are estimates on a straight line.
    let taken = (grid.points as u64).saturating_sub(replayed.missing_points);
    if model == Model::Growth && taken < LEAST_POINTS {
        for site in &mut sites {
            (site.judgement, site.with_stacks) = (Judgement::too_short(taken, period_s), None);
        }
    }
    let ended = merged.ended_watches(trace);
    let ended: HashSet<SiteLabel> = ended.iter().map(|site| SiteLabel::Number(u64::from(site.0))).collect();
    families::judge_with_stacks(&mut sites, &ended);
    if model == Model::Growth {
        mapped::judge_by_resident_memory(&mut sites, &replayed.memory, &merged, trace);
        pools::withdraw_unsure_leaks(&mut sites, trace, grid.points as f64 * period_s);
        weak_evidence::withdraw_negligible(&mut sites, grid.points as f64 * period_s);
        weak_evidence::withdraw_leaks_freed_at_exit(&mut sites, grid.points as f64 * period_s);
        match trace.cpu_use() {
            Some(processor) if is_busy(processor) => {
                batch::lower_confidence(&mut sites, processor.used_ns as f64 / 1e9);
            }
            Some(_) => bursts::leave_bursts_undecided(&mut sites, grid.points as f64 * period_s),
            None => {}
        }
        if let Some(attached) = trace.attached() {
            attached::withdraw_explained_leaks(&mut sites, attached, grid.points as f64 * period_s);
        }
    }

    explain_threads(&mut sites, trace, &merged);
    mapped::read_given_back(&mut sites, trace, &merged);
    mapped::tell_given_back(&mut sites, mapped::lost_give_backs(trace) > 0);

    let record_s = grid.points as f64 * period_s;
    let unexplained = if model == Model::Growth { unexplained::growth_of(&sites, record_s) } else { None };

    let mapped = mapped::of_trace(trace, &sites, &replayed.memory, &growth, record_s);
    let (losses, damage) = (trace.losses(), trace.damage());
    let mut summary = summarize(&sites);
    // If the process ran before the recording, it may free allocations that it made before the recording. The
    // recorder does not know the addresses of allocations from before the recording, so a free of such an
    // address is not an error of the recorder.
    match trace.attached() {
        Some(_) => summary.earlier_frees = losses.unknown_frees,
        None => summary.unknown_frees = losses.unknown_frees,
    }
    summary.lost_slices = losses.missed_slices.saturating_add(damage.lost_slices);
    let lost = lost_at_the_end(trace, &replayed, period_s);
    let missing = replayed.missing_points.saturating_add(replayed.missing_behind.max(lost));
    let all = (trace.grid().points as u64).max(grid.points as u64 + replayed.missing_behind.max(lost));
    let share = |points: u64| points as f64 / (all as f64).max(1.0);
    summary.missing_share = share(missing);
    summary.longest_gap_share = share(replayed.longest_gap.max(lost));
    summary.untracked_allocs = losses.untracked_allocs;
    summary.lost_module_events = losses.lost_module_events;
    summary.other_site_allocs = losses.other_site_allocs;
    summary.lost_stacks = losses.lost_stacks;
    summary.unrecorded_images = losses.unrecorded_images;
    summary.unrequested_children = trace.children().unrequested;
    summary.damaged_blocks = damage.torn_blocks.saturating_add(replayed.unreadable_blocks);
    summary.damaged_bytes = damage.skipped_bytes;
    let end_ns = trace.end().map_or(replayed.last_ns, |end| end.at_ns.max(replayed.last_ns));
    Analysis {
        source,
        header: Header {
            command: start.command.clone(),
            pid: start.pid,
            started_unix_ns: start.started_unix_ns,
            duration_s: end_ns as f64 / 1e9,
            slices: replayed.slices,
            judged_slices: if replayed.slices == 0 { 0 } else { taken },
            period_s,
            complete: trace.end().is_some() && damage.is_sound() && replayed.unreadable_blocks == 0,
            end: trace.end().map(|end| in_words(end.reason)),
            is_replaced: trace.end().is_some_and(|end| end.reason == EndReason::Replaced),
            undecided: None,
            is_executed: trace.end().is_some_and(|end| end.reason == EndReason::Executed),
            earlier_traces: trace.earlier_traces().to_vec(),
            recorder: start.recorder.clone(),
            machine: start.machine.clone(),
            before: trace.attached().map(|attached| Before {
                age_s: attached.age_ns as f64 / 1e9,
                resident_bytes: attached.resident_bytes,
            }),
        },
        summary,
        growth,
        unexplained,
        pools: pools::of_trace(trace, &sites),
        mapped,
        own_heaps,
        uncounted_functions,
        children_did_the_work: children_did_the_work(trace),
        sites,
        process: replayed.process,
        work: replayed.work,
        outcomes: Vec::new(),
        steps: Steps::default(),
        history: None,
        marks: per_mark::marks_of(trace),
        per_mark: None,
    }
}

/// malloc rounds the size of each allocation up, so small allocations take more resident memory than the
/// program requested. If this additional memory explains at least half of the growth of the process, the
/// function sets the kind of growth to `Live`, because live allocations cause the growth. If live bytes
/// fell, the kind is `Retained`: malloc holds more memory for fewer requested bytes.
fn explain_by_small_blocks(growth: &mut ProcessGrowth, sites: &[JudgedSite]) {
    let by = |from: u64, to: u64| to.saturating_sub(from) as f64;
    let unexplained = by(growth.resident_from_bytes, growth.resident_to_bytes)
        - by(growth.live_from_bytes, growth.live_to_bytes);
    let blocks: f64 =
        sites.iter().filter(|site| site.domain() == Domain::Heap).map(|site| site.block_growth_bytes).sum();
    if matches!(growth.kind, GrowthKind::Outside | GrowthKind::Retained) && blocks >= unexplained / 2.0 {
        growth.kind = match growth.live_to_bytes >= growth.live_from_bytes {
            true => GrowthKind::Live,
            false => GrowthKind::Retained,
        };
    }
}

/// A program counts as busy if it ran or waited for a processor for at least this share of the record. The
/// limit is a share of the record and not a number of seconds, because a number of seconds would depend on
/// the speed of the machine.
const BUSY_SHARE: f64 = 0.6;

fn is_busy(processor: &CpuUse) -> bool {
    let ready_ns = processor.used_ns.saturating_add(processor.waited_ns) as f64;
    processor.span_ns > 0 && ready_ns >= BUSY_SHARE * processor.span_ns as f64
}

/// The number of points at the end of the record, after the last slice, that have no slice. If the recording
/// went on after its last slice, or if the last blocks of the trace are damaged, the end of the record has
/// points without a slice.
fn lost_at_the_end<T>(trace: &Trace, replayed: &Replayed<T>, period_s: f64) -> u64 {
    let behind_s = trace.end().map_or(0.0, |end| end.at_ns.saturating_sub(replayed.last_ns) as f64 / 1e9);
    // A complete recording ends less than one period after its last slice.
    let by_time = if period_s > 0.0 { (behind_s / period_s) as u64 } else { 0 };
    let inside = replayed.missing_points.saturating_add(replayed.missing_behind);
    by_time.max(trace.damage().lost_slices.saturating_sub(inside))
}

fn judge_lines(source: String, lines: &[LineSeries], model: Model) -> Analysis {
    let mut sites: Vec<JudgedSite> = lines
        .par_iter()
        .map(|line| JudgedSite {
            parent: line.parent.clone(),
            kind: if line.parent.is_some() { Kind::Stack } else { Kind::Caller },
            totals: line.totals,
            survivors: line.survivors.clone(),
            stack: line.stack.clone(),
            ..judged(line.label.clone(), &line.series, line.with_stacks.as_ref(), line.period_s, model)
        })
        .collect();
    families::judge_with_stacks(&mut sites, &HashSet::new());
    let slices =
        lines.iter().map(|line| line.series.absent().saturating_add(line.series.points())).max().unwrap_or(0);
    let period_s = lines.first().map_or(0.0, |line| line.period_s);
    Analysis {
        source,
        header: Header {
            duration_s: slices as f64 * period_s,
            slices,
            judged_slices: slices,
            period_s,
            complete: true,
            undecided: lines.iter().find_map(|line| line.undecided.clone()),
            ..Header::default()
        },
        summary: summarize(&sites),
        growth: growth_of(&ProcessSeries::default(), 0),
        unexplained: None,
        mapped: None,
        pools: None,
        own_heaps: Vec::new(),
        uncounted_functions: Vec::new(),
        children_did_the_work: false,
        sites,
        process: ProcessSeries::default(),
        outcomes: Vec::new(),
        work: Arc::default(),
        steps: Steps::default(),
        history: None,
        marks: Vec::new(),
        per_mark: None,
    }
}

fn judge_site(replayed: &ReplayedSite, period_s: f64, model: Model) -> JudgedSite {
    let counters = &replayed.counters;
    let totals = Totals {
        live_bytes: counters.live_bytes(),
        live_count: Some(counters.live_count()),
        allocs: Some(counters.allocs),
        frees: Some(counters.frees),
        allocated_bytes: Some(counters.allocated_bytes),
        freed_bytes: Some(counters.freed_bytes),
    };
    let label = SiteLabel::Number(u64::from(replayed.id.0));
    JudgedSite { totals, ..judged(label, &replayed.series, replayed.with_stacks.as_ref(), period_s, model) }
}

/// Judges one site. If the site has stacks, the result also contains the judgement on the site together with
/// its stacks. [`families::judge_with_stacks`] chooses between the two judgements.
fn judged(
    label: SiteLabel,
    series: &Series,
    with_stacks: Option<&Series>,
    period_s: f64,
    model: Model,
) -> JudgedSite {
    JudgedSite {
        label,
        parent: None,
        kind: Kind::Caller,
        pool: None,
        judgement: judge(series, period_s, model),
        leak_factor: series.sums().filter(|_| model == Model::LeakFactor).map(leak_factor),
        with_stacks: with_stacks.map(|series| {
            Box::new(WithStacks { judgement: judge(series, period_s, model), levels: Levels::of(series) })
        }),
        judged_with_stacks: false,
        leak_share: None,
        per_mark: None,
        totals: Totals::default(),
        resident_bytes: None,
        given_back: None,
        levels: Levels::of(series),
        block_growth_bytes: growth_beyond_asked(series),
        survivors: Vec::new(),
        addresses: 1,
        stack: Vec::new(),
        is_stack_cut: false,
        standing: Standing::Unlisted,
    }
}

fn survivors_of(survivors: &Survivors) -> Vec<Survivor> {
    let seconds = |ns: u64| ns as f64 / 1e9;
    let of = |epoch: &edleak_format::Epoch| Survivor {
        from_s: seconds(epoch.from_ns),
        to_s: seconds(epoch.to_ns),
        bytes: epoch.live_bytes,
        count: epoch.live_count,
    };
    survivors.epochs.iter().map(of).collect()
}

/// For each leaking site at which libc allocates memory for threads, adds this fact to the reasons of the
/// verdict. libc frees a thread's memory, or uses it for the next thread, only after the program has joined
/// or detached the thread.
fn explain_threads(sites: &mut [JudgedSite], trace: &Trace, merged: &Merged) {
    const REASON: &str = "libc allocated this for threads; some were neither joined nor detached, here or at \
                          another call of pthread_create";
    let starts = trace.thread_starts().iter().map(|&site| SiteLabel::Number(u64::from(merged.root(site).0)));
    let starts: HashSet<SiteLabel> = starts.collect();
    let starts_threads = |site: &&mut JudgedSite| {
        let of = |label: &SiteLabel| starts.contains(label);
        site.is_leak() && (of(&site.label) || site.parent.as_ref().is_some_and(of))
    };
    for site in sites.iter_mut().filter(starts_threads) {
        site.judgement.why.insert(0, REASON.into());
    }
}

/// Whether the child processes without a trace used at least 10 ms of processor time, and more processor time
/// than the process itself. Linux reports these times in units of 10 ms.
fn children_did_the_work(trace: &Trace) -> bool {
    const LEAST_NS: u64 = 10_000_000;
    trace.cpu_totals().is_some_and(|time| time.children_ns >= LEAST_NS && time.children_ns > time.own_ns)
}

fn summarize(sites: &[JudgedSite]) -> Summary {
    let heap = || sites.iter().filter(|site| site.domain() == Domain::Heap);
    let sum = |value: fn(&Totals) -> Option<u64>| {
        heap().filter_map(|site| value(&site.totals)).fold(0u64, u64::saturating_add)
    };
    Summary {
        sites: heap().count() as u64,
        undecided: heap().filter(|site| site.judgement.verdict == Verdict::Undecided).count() as u64,
        live_bytes: sum(|totals| Some(totals.live_bytes)),
        live_count: sum(|totals| totals.live_count),
        allocated_bytes: sum(|totals| totals.allocated_bytes),
        freed_bytes: sum(|totals| totals.freed_bytes),
        allocs: sum(|totals| totals.allocs),
        frees: sum(|totals| totals.frees),
        ..Summary::default()
    }
}

fn in_words(reason: EndReason) -> String {
    match reason {
        EndReason::Exited(status) => format!("the program exited with status {status}"),
        EndReason::Killed(signal) => format!("signal {signal} killed the program"),
        EndReason::Gone => "the program ended".into(),
        EndReason::DurationReached => "the recording reached its duration".into(),
        EndReason::Stopped => "the recording was stopped".into(),
        EndReason::DiskFull => "the disk was full".into(),
        EndReason::Executed => "the process went on as another program, in another trace".into(),
        EndReason::Replaced => "the process executed a program that was not recorded".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::judged;
    use crate::site::{JudgedSite, SiteLabel, Totals};
    use edleak_model::classify::{Judgement, Model, Verdict, judge};
    use edleak_model::growth_class::Class;
    use edleak_model::series::Series;

    pub(super) fn judgement(
        verdict: Verdict,
        leak_bytes: u64,
        rate_bytes_per_s: f64,
        by_survivors: bool,
    ) -> Judgement {
        let nothing = judge(&Series::default(), 1.0, Model::Growth);
        Judgement { class: Class::Linear, verdict, leak_bytes, rate_bytes_per_s, by_survivors, ..nothing }
    }

    pub(super) fn site(number: u64, parent: Option<u64>, allocs: u64, judgement: Judgement) -> JudgedSite {
        let blank = judged(SiteLabel::Number(number), &Series::default(), None, 1.0, Model::Growth);
        let totals = Totals { allocs: Some(allocs), ..Totals::default() };
        JudgedSite { parent: parent.map(SiteLabel::Number), totals, judgement, ..blank }
    }
}
