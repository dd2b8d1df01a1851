//! Reasons in words: the two or three statistics that decided, for a reader who does not know the model.

use super::births::Survivors;
use super::trend::Trend;
use edleak_text::units;

/// An eighth has grown if it gained at least this share of the whole rise.
const LEAST_RISE: f64 = 0.02;

/// A record too short for a verdict.
pub(crate) fn too_short(slices: u64, needed: u64) -> Vec<String> {
    vec![format!("the record has {slices} of the {needed} slices that a verdict needs")]
}

/// A site that first appeared after the judged part of the record.
pub(crate) fn unseen() -> Vec<String> {
    vec!["it was not there before the very end of the record".to_owned()]
}

/// A site whose live bytes never changed.
pub(crate) fn unmoved(slices: u64) -> Vec<String> {
    vec![format!("live bytes stayed the same in all {slices} slices")]
}

/// A leak, judged by its curve.
pub(crate) fn grows(trend: &Trend, bic: f64) -> Vec<String> {
    let mut why = vec![windows(trend), pace(trend)];
    why.extend(against_a_cache(bic));
    why
}

/// A leak of allocations that get larger.
pub(crate) fn bigger(trend: &Trend, bic: f64) -> Vec<String> {
    let mut why = vec!["the same number of allocations gets bigger and bigger".to_owned(), pace(trend)];
    why.extend(against_a_cache(bic));
    why
}

/// A leak that shows after `what` was taken out of the curve.
pub(crate) fn beneath(what: &str, trend: &Trend, bic: f64) -> Vec<String> {
    let mut why = vec![format!("grows beneath {what}"), pace(trend)];
    why.extend(against_a_cache(bic));
    why
}

/// A buffer whose next doubling would come after the end of the record.
pub(crate) fn doubles() -> Vec<String> {
    vec![
        "its size goes up in ever larger steps, as that of a buffer to which something is added without end"
            .to_owned(),
        "the last of them came too late for the next one to show".to_owned(),
    ]
}

/// The quiet time in which the program does next to no work.
pub struct Quiet {
    /// Length of the quiet time at the end, in seconds.
    pub seconds: f64,
    /// Pace of the quiet time as a share of the pace while the site grew. If the record ends busy: the share
    /// of the record that was quiet.
    pub share: f64,
    /// The record ends with quiet time.
    pub is_over: bool,
    /// No slice was taken in the quiet time at the end.
    pub is_missing: bool,
    /// Most of the growth was freed.
    pub is_released: bool,
}

/// Growth that stopped together with the work of the whole program.
pub(crate) fn quiet(quiet: &Quiet) -> Vec<String> {
    let pace = match quiet.share {
        share if share <= 0.0 => "no allocation".to_owned(),
        share => format!("{} of its allocations before", percent(share)),
    };
    let seconds = units::duration(quiet.seconds);
    let when = match (quiet.is_over, quiet.is_released) {
        (true, _) if quiet.is_missing => format!("no slice was taken in the last {seconds}"),
        (true, false) => format!("the program did next to nothing in the last {seconds} ({pace})"),
        (true, true) => {
            format!("most was freed when the program had stopped working, in the last {seconds} ({pace})")
        }
        (false, _) => format!("the program did next to nothing for {} of the record", percent(quiet.share)),
    };
    vec![when, "while it worked, the site grew: a leak and a cache that is not full look the same".to_owned()]
}

/// Allocations of 0 bytes.
pub(crate) fn sizeless(block_bytes: f64) -> String {
    format!(
        "its allocations ask for 0 bytes; glibc holds {block_bytes:.0} for each, which is what is counted here"
    )
}

/// A busy program, most of whose live memory grew.
pub fn batch() -> String {
    "the program computed from start to end, and most of what it holds grew: a program that keeps what it works on until it ends \
     looks the same"
        .to_owned()
}

/// Memory that a busy program kept until it ended.
pub fn freed_at_exit() -> String {
    "the program computed from start to end, and freed this when it ended".to_owned()
}

/// A leak that would be certain if the program had used more processor time.
pub fn little_processor_time(used_s: f64) -> String {
    format!("the program used {} of processor time, so it may still be starting", units::duration(used_s))
}

/// Growth in fewer busy slices than a verdict needs.
pub(crate) fn too_little_work(slices: usize) -> Vec<String> {
    vec![format!("it worked for no more than {}", units::plural(slices as u64, "slice", "slices"))]
}

/// A leak according to the survivors, but most of it was freed before the record ended.
pub(crate) fn freed_before_the_end(survivors: &Survivors) -> Vec<String> {
    vec![
        format!(
            "{} of what was allocated between an eighth and four fifths of the record stayed until nearly its end",
            percent(survivors.kept)
        ),
        "then most of it was freed, by the work or by a teardown".to_owned(),
    ]
}

/// A verdict, either way, from the survivors' birth times.
pub(crate) fn survivors(survivors: &Survivors, trend: &Trend, bic: f64) -> Vec<String> {
    let kept = format!(
        "{} of what was allocated between an eighth and four fifths of the record is still alive",
        percent(survivors.kept)
    );
    let mut why = vec![kept, windows(trend)];
    if survivors.log_odds > 0.0 {
        why.extend(against_a_cache(bic));
        why.push(format!("odds that it leaks: {} to 1", odds(survivors.log_odds)));
    } else {
        why.push(format!("odds that it does not leak: {} to 1", odds(-survivors.log_odds)));
    }
    why
}

/// A suspect that leaked less than a thousandth of the program's live memory.
pub fn negligible(leak_bytes: u64) -> String {
    let leaked = units::bytes(leak_bytes as f64);
    format!("but {leaked} are less than a thousandth of what is live, and so much may be chance")
}

/// Growth by a handful of allocations at a site that frees many.
pub(crate) fn a_few(rise: f64, frees: u64) -> Vec<String> {
    let kept = units::plural(rise.max(1.0) as u64, "allocation more is", "allocations more are");
    vec![
        format!("{kept} live than after a quarter of the record, of which a busier moment may be the cause"),
        format!("{} freed", units::plural(frees, "was", "were")),
    ]
}

/// A leak that would be certain if the record were longer.
pub(crate) fn young(least_s: f64) -> String {
    format!("in less than {least_s} s a program may still be starting")
}

/// A curve that a cache explains as well or better.
pub(crate) fn fills(bic: f64) -> Vec<String> {
    vec![if bic < -0.7 {
        format!(
            "a cache that fills, or growth that stops, explains the curve {} times as well as a leak",
            odds(-bic)
        )
    } else {
        "a cache that fills explains the curve as well as a leak".to_owned()
    }]
}

/// Plain growth that a cache explains as well as a leak.
pub(crate) fn ambiguous(trend: &Trend) -> Vec<String> {
    vec![windows(trend), pace(trend), "a cache that is still filling would look the same so far".to_owned()]
}

/// The test that the curve failed most plainly.
pub(crate) fn weakest(trend: &Trend) -> Vec<String> {
    vec![if trend.rise() <= 0.0 {
        "it did not grow over the last three quarters of the record".to_owned()
    } else if trend.pace <= 0.15 {
        "it grew, then stopped".to_owned()
    } else if trend.largest_step >= 0.87 {
        format!("one single step makes up {} of what it retained", percent(trend.largest_step))
    } else if trend.second >= 0.6 {
        "two single steps make up most of what it retained".to_owned()
    } else {
        "its rise is no more than its own ups and downs would show by chance".to_owned()
    }]
}

/// Compares the means of the eighths, so variation within an eighth does not count: bursty growth still rises
/// from eighth to eighth.
fn windows(trend: &Trend) -> String {
    // A few bytes more are no growth.
    let least = LEAST_RISE * trend.rise().max(0.0);
    let rises =
        |from: usize| trend.eighths[from..].windows(2).filter(|pair| pair[1] - pair[0] > least).count();
    match (rises(0), rises(2)) {
        (7, _) => "higher in every eighth of its time than in the one before".to_owned(),
        (_, rose) => format!("higher in {rose} of the last 5 eighths of its time than in the one before"),
    }
}

fn pace(trend: &Trend) -> String {
    let ratio = trend.pace / (1.0 - trend.pace.min(0.999));
    match trend.pace {
        ..=0.01 => "its growth has stopped".to_owned(),
        0.01..0.45 => format!("its pace fell to {} of what it was before", percent(ratio)),
        0.45..0.6 => "in its last two fifths it grew about as much as in the two before".to_owned(),
        0.6..0.95 => format!("its pace rose to {ratio:.1} times what it was before"),
        _ => "it began to grow late and has not stopped".to_owned(),
    }
}

fn against_a_cache(bic: f64) -> Option<String> {
    (bic > 0.7).then(|| {
        format!(
            "a leak explains the curve {} times as well as any cache that fills within the record",
            odds(bic)
        )
    })
}

fn odds(log: f64) -> String {
    match log.min(10.0).exp() {
        odds if odds >= 1000.0 => "over 1000".to_owned(),
        odds if odds >= 10.0 => format!("{odds:.0}"),
        odds => format!("{odds:.1}"),
    }
}

fn percent(share: f64) -> String {
    match 100.0 * share {
        percent if percent > 0.0 && percent < 1.0 => "less than 1 %".to_owned(),
        percent => format!("{percent:.0} %"),
    }
}
