//! JSON: the marks of a recording, and the verdicts that are computed from iterations.

use edleak_analysis::per_mark::{JudgedMark, MarkSeen, PerMark, SitePerMark};
use edleak_model::iterations::Verdict;
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct MarkJson<'a> {
    name: &'a str,
    name_cut: bool,
    count: u64,
    slices: u64,
    first_s: f64,
    last_s: f64,
}

#[derive(Serialize)]
pub(super) struct PerMarkJson<'a> {
    pattern: &'a str,
    unnamed_marks: u64,
    marks: Vec<JudgedMarkJson<'a>>,
}

#[derive(Serialize)]
struct JudgedMarkJson<'a> {
    name: &'a str,
    iterations: u64,
    warm_up: u64,
    too_few: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct SitePerMarkJson<'a> {
    mark: &'a str,
    verdict: &'static str,
    exact: bool,
    judged_iterations: u64,
    bytes_per_iteration: f64,
    allocations_per_iteration: f64,
    left_bytes: u64,
    left_allocations: u64,
    why: &'a str,
    needed_iterations: Option<u64>,
}

impl<'a> MarkJson<'a> {
    pub(super) fn of(mark: &'a MarkSeen) -> Self {
        let MarkSeen { name, is_cut, count, slices, first_s, last_s } = mark;
        Self { name, name_cut: *is_cut, count: *count, slices: *slices, first_s: *first_s, last_s: *last_s }
    }
}

impl<'a> PerMarkJson<'a> {
    pub(super) fn of(per_mark: &'a PerMark) -> Self {
        let judged = |mark: &'a JudgedMark| JudgedMarkJson {
            name: &mark.name,
            iterations: mark.iterations,
            warm_up: mark.warm_up,
            too_few: mark.too_few.as_deref(),
        };
        Self {
            pattern: &per_mark.pattern,
            unnamed_marks: per_mark.unnamed,
            marks: per_mark.marks.iter().map(judged).collect(),
        }
    }
}

impl<'a> SitePerMarkJson<'a> {
    pub(super) fn of(per_mark: &'a SitePerMark) -> Self {
        let found = &per_mark.iterations;
        Self {
            mark: &per_mark.mark,
            verdict: match found.verdict {
                Verdict::Leak => "leak",
                Verdict::Undecided => "undecided",
                Verdict::Clean => "no-leak",
            },
            exact: found.is_exact,
            judged_iterations: found.judged,
            bytes_per_iteration: found.bytes,
            allocations_per_iteration: found.allocations,
            left_bytes: found.left_bytes,
            left_allocations: found.left_count,
            why: &found.why,
            needed_iterations: found.needed,
        }
    }
}
