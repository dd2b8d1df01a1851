//! Writes the reasons for a verdict in words, for a reader who does not know the model. The reasons name the
//! two or three statistics that decided the verdict.

use super::births::Survivors;
use super::trend::Trend;
use edleak_text::units;

/// A rise from one eighth of the record to the next counts as growth only if it is at least this share of the
/// whole rise.
const LEAST_RISE: f64 = 0.02;

/// The reason for the verdict `Undecided` if the record is too short for any other verdict.
pub(crate) fn too_short(slices: u64, needed: u64) -> Vec<String> {
    vec![format!("the record has {slices} of the {needed} slices that a verdict needs")]
}

/// The reason for the verdict on a site that first appeared after the judged part of the record.
pub(crate) fn unseen() -> Vec<String> {
    vec!["first seen at the very end of the record".to_owned()]
}

/// The reason for the verdict on a site whose live bytes never changed.
pub(crate) fn unmoved(slices: u64) -> Vec<String> {
    vec![format!("live bytes stayed the same in all {slices} slices")]
}

/// The reasons for a leak whose verdict is computed from its curve.
pub(crate) fn grows(trend: &Trend, bic: f64) -> Vec<String> {
    let mut why = vec![windows(trend), pace(trend)];
    why.extend(against_a_cache(bic));
    why
}

/// The reasons for a leak in which the allocations get larger and their number stays the same.
pub(crate) fn bigger(trend: &Trend, bic: f64) -> Vec<String> {
    let mut why =
        vec!["the number of allocations stays the same, and their size grows".to_owned(), pace(trend)];
    why.extend(against_a_cache(bic));
    why
}

/// The reasons for a leak that is visible only after the model removed `what` (a wave or surges) from the
/// curve.
pub(crate) fn beneath(what: &str, trend: &Trend, bic: f64) -> Vec<String> {
    let mut why = vec![format!("still grows when {what} is taken out of the curve"), pace(trend)];
    why.extend(against_a_cache(bic));
    why
}

/// The reasons for the verdict on a buffer that doubles, if its next doubling would come after the end of the
/// record.
pub(crate) fn doubles() -> Vec<String> {
    vec![
        "its size rises in steps, each larger than the one before, like a buffer that doubles".to_owned(),
        "the last step came so late that the record ends before the next one is due".to_owned(),
    ]
}

/// Facts about the quiet time of a record, in which the program does almost no work.
pub(crate) struct Quiet {
    /// Length of the quiet time at the end of the record, in seconds.
    pub seconds: f64,
    /// The number of allocations per second that the program makes in the quiet time at the end, as a share
    /// of the number while the site grew. If the program is busy at the end of the record, `share` is
    /// instead the share of the record that was quiet.
    pub share: f64,
    /// Whether the record ends with quiet time.
    pub is_over: bool,
    /// Whether the recorder took no slices in the quiet time at the end.
    pub is_missing: bool,
    /// Whether the program freed at least half of the memory by which the site grew.
    pub is_released: bool,
}

/// The reasons for an undecided site whose growth stopped together with the work of the whole program.
pub(crate) fn quiet(quiet: &Quiet) -> Vec<String> {
    let pace = match quiet.share {
        share if share <= 0.0 => "no allocation".to_owned(),
        share => format!("{} of its allocations before", units::percent(share)),
    };
    let seconds = units::duration(quiet.seconds);
    let when = match (quiet.is_over, quiet.is_released) {
        (true, _) if quiet.is_missing => format!("no slice was taken in the last {seconds}"),
        (true, false) => format!("the program did next to nothing in the last {seconds} ({pace})"),
        (true, true) => {
            format!(
                "most of it was freed in the last {seconds}, when the program did next to nothing ({pace})"
            )
        }
        (false, _) => {
            format!("the program did next to nothing for {} of the record", units::percent(quiet.share))
        }
    };
    vec![
        when,
        "the site grew while the program worked: a leak and a cache that is not full look the same"
            .to_owned(),
    ]
}

/// The reason that explains how allocations of 0 bytes can leak memory.
pub(crate) fn sizeless(block_bytes: f64) -> String {
    format!(
        "its allocations ask for 0 bytes; the figures count the {block_bytes:.0} bytes that glibc holds for \
         each"
    )
}

/// The reason why a leak of a busy program gets the confidence `Suspect`: most of the live memory of the
/// program grew.
pub fn batch() -> String {
    "the program computed from start to end, and most of its live memory grew: a batch program that keeps \
     its data until it ends looks the same"
        .to_owned()
}

/// The reason why a leak of a busy program gets the confidence `Suspect`: the program freed the memory when
/// it ended.
pub fn freed_at_exit() -> String {
    "the program computed from start to end, and freed these allocations when it ended".to_owned()
}

/// The reason why a leak gets the confidence `Suspect` instead of `Strict`: the program used little processor
/// time.
pub fn little_processor_time(used_s: f64) -> String {
    format!("the program used {} of processor time, so it may still be starting", units::duration(used_s))
}

/// The reason for an undecided site whose growth may be no real growth: the program freed allocations from
/// before the recording, and may have made new allocations in their place.
pub fn may_replace_earlier(growth: f64, frees: f64) -> String {
    format!(
        "the process ran before: in the second half of the record, it freed {} from before, and this site \
         grew by about {}; the growth may only replace them",
        units::plural(frees as u64, "allocation", "allocations"),
        units::plural(growth as u64, "allocation", "allocations"),
    )
}

/// The reasons for an undecided site: the program was busy in fewer slices than a verdict needs.
pub(crate) fn too_little_work(slices: usize) -> Vec<String> {
    vec![format!("the program worked in only {}", units::plural(slices as u64, "slice", "slices"))]
}

/// The reasons for an undecided site: the surviving allocations show a leak, but the program freed most of
/// the leaked memory before the record ended.
pub(crate) fn freed_before_the_end(survivors: &Survivors) -> Vec<String> {
    vec![
        format!(
            "{} of the allocations made between 1/8 and 4/5 of the record stayed until near its end",
            units::percent(survivors.kept)
        ),
        "most of them were freed after that, by the work or by a teardown".to_owned(),
    ]
}

/// The reasons for a verdict (leak or no leak) that the birth times of the surviving allocations decided.
pub(crate) fn survivors(survivors: &Survivors, trend: &Trend, bic: f64) -> Vec<String> {
    let kept = format!(
        "{} of the allocations made between 1/8 and 4/5 of the record are still alive",
        units::percent(survivors.kept)
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

/// The reason for an undecided site that grows like a leak with the confidence `Suspect`, but leaked less
/// than a thousandth of the program's live memory.
pub fn negligible(leak_bytes: u64) -> String {
    let leaked = units::bytes(leak_bytes as f64);
    format!("but {leaked} are less than a thousandth of the live memory, which may be chance")
}

/// The reason for an undecided site that keeps all its allocations and grew in a few bursts; the last burst
/// began `last_s` seconds after the start of the record.
pub fn bursts(bursts: u64, last_s: f64) -> String {
    format!(
        "grew in {bursts} bursts, the last after {}, and freed nothing; more bursts would show a leak",
        units::duration(last_s)
    )
}

/// The reason for an undecided site that grew by few allocations, which the program freed when it ended.
pub fn few_freed_at_exit(count: u64) -> String {
    let few = units::plural(count, "allocation", "allocations");
    format!(
        "but the program freed these {few} when it ended: a structure that grows to its size looks the same"
    )
}

/// The reason for the verdict on a site that grew by only a few allocations and freed many allocations.
pub(crate) fn a_few(rise: f64, frees: u64) -> Vec<String> {
    let kept = units::plural(rise.max(1.0) as u64, "more allocation is", "more allocations are");
    let freed = units::plural(frees, "was", "were");
    vec![format!(
        "{kept} live than after a quarter of the record, and {freed} freed: one busier moment explains this"
    )]
}

/// The reason why a leak gets the confidence `Suspect` instead of `Strict`: the record is short.
pub(crate) fn young(least_s: f64) -> String {
    format!("a record of less than {least_s} s may show only the start of the program")
}

/// The reasons for the verdict that a site does not leak, because a cache explains its curve as well as a
/// leak does, or better.
pub(crate) fn fills(bic: f64) -> Vec<String> {
    vec![if bic < -0.7 {
        format!(
            "a cache that fills, or growth that stops, fits the curve {} times as well as a leak",
            odds(-bic)
        )
    } else {
        "a cache that fills fits the curve as well as a leak".to_owned()
    }]
}

/// The reasons for an undecided site that clearly grows, if a cache explains the growth as well as a leak
/// does.
pub(crate) fn ambiguous(trend: &Trend) -> Vec<String> {
    vec![windows(trend), pace(trend), "a cache that is still filling looks the same so far".to_owned()]
}

/// The reason for the verdict that a site does not leak: names the test that its curve failed most clearly.
pub(crate) fn weakest(trend: &Trend) -> Vec<String> {
    vec![if trend.rise() <= 0.0 {
        "it did not grow over the last three quarters of the record".to_owned()
    } else if trend.pace <= 0.15 {
        "it grew, and then stopped".to_owned()
    } else if trend.largest_step >= 0.87 {
        format!(
            "{} of its growth came in one step (a leak: less than 87 %)",
            units::percent(trend.largest_step)
        )
    } else if trend.second_step >= 0.6 {
        "two steps make up most of its growth".to_owned()
    } else {
        "its rise is within its own ups and downs".to_owned()
    }]
}

/// Compares the means of the curve in the eighths of the record. Only the means count, so a curve that
/// grows in bursts also rises from one eighth to the next.
fn windows(trend: &Trend) -> String {
    // A rise of a few bytes from one eighth to the next does not count as growth.
    let least = LEAST_RISE * trend.rise().max(0.0);
    let rises =
        |from: usize| trend.eighths[from..].windows(2).filter(|pair| pair[1] - pair[0] > least).count();
    match (rises(0), rises(2)) {
        (7, _) => "grew in all 8 parts of its lifetime".to_owned(),
        (_, rose) => format!("grew in {rose} of the last 5 of the 8 parts of its lifetime"),
    }
}

fn pace(trend: &Trend) -> String {
    // `trend.pace` is the late slope, divided by the sum of the late and the early slope. The report shows
    // the late slope divided by the early slope, because this number is easier to understand than
    // `trend.pace`.
    let ratio = trend.pace.max(0.0) / (1.0 - trend.pace.clamp(0.0, 0.999));
    let now = match ratio {
        ratio if ratio < 10.0 => units::percent(ratio),
        _ => "over 10 times".to_owned(),
    };
    format!("pace of the last two fifths: {now} of the two before (a full cache: 0 %)")
}

fn against_a_cache(bic: f64) -> Option<String> {
    (bic > 0.7).then(|| {
        format!("a leak fits the curve {} times as well as a cache that fills within the record", odds(bic))
    })
}

fn odds(log: f64) -> String {
    match log.min(10.0).exp() {
        odds if odds >= 1000.0 => "over 1000".to_owned(),
        odds if odds >= 10.0 => format!("{odds:.0}"),
        odds => format!("{odds:.1}"),
    }
}
