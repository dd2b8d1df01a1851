//! Judges the memory that each iteration of a loop leaves behind at a site. The program sets a mark in each
//! iteration, and the input has the counters of the site at the instants of these marks.
//!
//! The curves have the count of the mark on the x-axis instead of the time, so the time that an iteration
//! takes does not matter. The first third of the iterations is the warm-up and is not judged. The model
//! judges the iterations after the warm-up by the **kept level**: the lowest level that the site has at a
//! mark or at any later mark. Memory that a later iteration frees is not part of the kept level. The last
//! iterations of a record may leave memory that an iteration after the end of the record would have freed,
//! so the model does not judge the last iterations. The number of iterations that the model leaves out at
//! the end is the length of the longest run of iterations in which the site held more than its kept level.
//!
//! | the kept level | verdict |
//! |---|---|
//! | does not rise, or rises once | no leak; undecided if the rise covers the last iterations of the record |
//! | rises by the same amount in every iteration | leak |
//! | rises in each quarter of the judged iterations, at a pace that does not diminish | leak |
//! | has not risen for a long time, compared with the gaps between its rises | no leak |
//! | rises at most once in the last quarter, and the second half rises ≤ 35 % of the first half | no leak |
//! | belongs to a buffer that doubles, and the last two doublings show the same pace of filling | leak |
//! | otherwise | undecided, with the number of iterations that would decide |

use edleak_text::units;

/// Least number of iterations for a verdict: three iterations for the warm-up, and five iterations that are
/// judged.
pub const LEAST_ITERATIONS: u64 = 8;
/// The judged iterations must contain at least this number of slices that were taken when the program set
/// the mark; with fewer slices, the pace of the growth is not visible.
pub const LEAST_SLICES: usize = 6;
/// Least number of rises of the kept level (the lowest level at a mark or later); with fewer rises, the pace
/// of the growth is not visible.
const LEAST_RISES: u64 = 5;
/// The memory of a site has stopped growing only if the time since the last rise of its kept level is at
/// least this number of times the longest time between two rises. (Both times are numbers of iterations.)
const LONG_GAP: f64 = 2.5;
/// Each step of a buffer that doubles makes the buffer at least this number of times as large.
const LEAST_FACTOR: f64 = 1.2;
/// Two steps of a buffer that doubles show the same pace of filling if the two paces differ by no more than
/// this share. The paces are not exact, because the slice that first shows a doubling may be late by up to
/// 1/32 of all iterations so far.
const SAME_PACE: f64 = 0.2;

/// The counters of a site at one slice that was taken when the program set the mark.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct AtMark {
    /// How often the program had set the mark at this slice.
    pub count: u64,
    /// Live bytes.
    pub live_bytes: u64,
    /// Live allocations.
    pub live_count: u64,
}

/// The verdict on a site, from the iterations of one mark.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// The iterations leave no memory behind.
    Clean,
    /// The recording has too few iterations for a verdict.
    Undecided,
    /// The iterations leave memory behind.
    Leak,
}

/// The verdict and the memory that the iterations leave behind at one site.
#[derive(Clone, PartialEq, Debug)]
pub struct Iterations {
    /// The verdict.
    pub verdict: Verdict,
    /// Whether every judged iteration leaves the same number of bytes and of allocations behind.
    pub is_exact: bool,
    /// Whether the evidence for the leak is strong enough to fail a build; false if the verdict is not a
    /// leak.
    pub is_strict: bool,
    /// Number of judged iterations.
    pub judged: u64,
    /// Bytes that all judged iterations together left behind.
    pub left_bytes: u64,
    /// Allocations that all judged iterations together left behind.
    pub left_count: u64,
    /// Bytes that an iteration leaves behind on average.
    pub bytes: f64,
    /// Allocations that an iteration leaves behind on average.
    pub allocations: f64,
    /// The reason for the verdict.
    pub why: String,
    /// For an undecided site, the number of iterations that a recording needs for a verdict.
    pub needed: Option<u64>,
}

/// The default number of warm-up iterations: a third of all iterations, but at least three.
pub fn warm_up(iterations: u64) -> u64 {
    (iterations / 3).max(3)
}

/// Judges one site. `points` are the counters of the site at all slices of the mark, in order of the count.
/// The first `skipped` points belong to the warm-up.
pub fn judge(points: &[AtMark], skipped: usize) -> Iterations {
    let judged = points.get(skipped..).unwrap_or_default();
    let (Some(first), Some(last)) = (judged.first(), judged.last()) else {
        return Iterations::clean(0, "no iteration was judged".into());
    };
    let mut bytes = Kept::of(judged, |point| point.live_bytes);
    let mut allocations = Kept::of(judged, |point| point.live_count);
    // The function leaves out the last iterations: at the end of the record, memory that a later iteration
    // would have freed looks like kept memory.
    let until = last.count - bytes.longest_use.max(allocations.longest_use);
    bytes.end_at(until);
    allocations.end_at(until);
    let iterations = bytes.span();
    let left = |verdict: Verdict, why: String| Iterations {
        verdict,
        judged: iterations,
        left_bytes: bytes.growth(),
        left_count: allocations.growth(),
        bytes: bytes.growth() as f64 / iterations as f64,
        allocations: allocations.growth() as f64 / iterations as f64,
        ..Iterations::clean(iterations, why)
    };
    let leak = |is_exact: bool, is_strict: bool, why: String| Iterations {
        is_exact,
        is_strict,
        ..left(Verdict::Leak, why)
    };
    // If all allocations have 0 bytes, the function judges the number of kept allocations, because the
    // allocator holds memory even for an allocation of 0 bytes.
    let kept = if bytes.growth() == 0 { &allocations } else { &bytes };
    if kept.growth() > 0
        && iterations > 0
        && bytes.is_even()
        && allocations.is_even()
        && kept.rises.len() as u64 >= LEAST_RISES
    {
        let why =
            format!("the same remains of each of {} iterations after the warm-up", units::count(iterations));
        return leak(true, true, why);
    }
    if let Some(pace) = doubling(points) {
        let why =
            "its buffer grows in steps, each when the iterations before it had filled the one before".into();
        return Iterations { bytes: pace, ..leak(false, false, why) };
    }
    if kept.growth() == 0 {
        return Iterations::clean(iterations, "nothing remains of the iterations after the warm-up".into());
    }
    let rises = kept.rises.len() as u64;
    let last_rise = kept.rises.last().copied().unwrap_or(first.count);
    let all = last.count.saturating_sub(points.first().map_or(0, |point| point.count));
    if rises == 1 && kept.may_be_several_rises(allocations.growth()) {
        let why = format!("grew in the last iterations, from {} on", units::count(last_rise));
        return Iterations { needed: Some(all.saturating_mul(2)), ..left(Verdict::Undecided, why) };
    }
    if rises == 1 {
        return Iterations::clean(iterations, format!("grew once, at iteration {}", units::count(last_rise)));
    }
    if let Some(steady) = kept.steady(allocations.growth()) {
        let why = format!(
            "grew in each quarter of {} iterations after the warm-up; pace steady (second half = {:.2} × the \
             first half)",
            units::count(iterations),
            steady.late_pace
        );
        return leak(false, steady.is_linear, why);
    }
    let gaps = kept.rises.windows(2).map(|pair| pair[1] - pair[0]);
    let longest_gap = gaps.max().unwrap_or(0) as f64;
    let quiet = (first.count + iterations).saturating_sub(last_rise);
    if quiet as f64 >= (LONG_GAP * longest_gap).max(iterations as f64 / 4.0) {
        let why = format!(
            "grew last at iteration {}, and in none of the {} iterations after it",
            units::count(last_rise),
            units::count(quiet)
        );
        return Iterations::clean(iterations, why);
    }
    if kept.dies_away() {
        return Iterations::clean(
            iterations,
            "its growth dies away, as that of a cache that has filled".into(),
        );
    }
    let (why, times) = if rises < LEAST_RISES {
        (
            format!("grew only {rises} times, {LEAST_RISES} are the least for a pace"),
            LEAST_RISES.div_ceil(rises) + 1,
        )
    } else if kept.slows_down() {
        ("its growth slows down, as that of a cache which fills".to_owned(), 3)
    } else {
        ("it grew unevenly".to_owned(), 3)
    };
    Iterations { needed: Some(all.saturating_mul(times)), ..left(Verdict::Undecided, why) }
}

impl Iterations {
    fn clean(judged: u64, why: String) -> Iterations {
        Iterations {
            verdict: Verdict::Clean,
            is_exact: false,
            is_strict: false,
            judged,
            left_bytes: 0,
            left_count: 0,
            bytes: 0.0,
            allocations: 0.0,
            why,
            needed: None,
        }
    }

    /// The memory that an iteration leaves behind, in words: `1,024 bytes in 1 allocation per iteration`.
    pub fn per_iteration(&self) -> String {
        per_iteration(self.bytes, self.allocations)
    }
}

/// Bytes and allocations per iteration, in words: `1,024 bytes in 1 allocation per iteration`.
pub fn per_iteration(bytes: f64, allocations: f64) -> String {
    let (bytes, allocations) = (number(bytes), number(allocations));
    let bytes = if bytes == "1" { "1 byte".into() } else { format!("{bytes} bytes") };
    match allocations.as_str() {
        "0" => format!("{bytes} per iteration, in an allocation that grows"),
        "1" => format!("{bytes} in 1 allocation per iteration"),
        many => format!("{bytes} in {many} allocations per iteration"),
    }
}

/// A number as the report prints it: a whole number without a fraction, any other number with one decimal
/// from 10 on, and with two significant digits below 10.
fn number(value: f64) -> String {
    if (value - value.round()).abs() < 1e-9 {
        // `value` is a whole number, apart from a rounding error.
        return units::count(value as u64);
    }
    if value >= 9.95 {
        let tenths = (value * 10.0).round() as u64;
        return format!("{}.{}", units::count(tenths / 10), tenths % 10);
    }
    let digits = (1.0 - value.log10().floor()).clamp(1.0, 6.0) as usize;
    format!("{value:.digits$}")
}

/// The kept level of bytes or of allocations: the lowest level that the site has at a mark or at any later
/// mark.
struct Kept {
    counts: Vec<u64>,
    levels: Vec<u64>,
    /// The counts of the mark at which the kept level (the lowest level at a mark or later) rose.
    rises: Vec<u64>,
    /// The length of the longest run of iterations in which the site held more than its kept level, that is,
    /// memory that a later iteration freed.
    longest_use: u64,
}

/// The figures of a kept level that grows at a pace that does not diminish.
struct Steady {
    late_pace: f64,
    is_linear: bool,
}

impl Kept {
    fn of(points: &[AtMark], value: impl Fn(&AtMark) -> u64) -> Kept {
        let counts = points.iter().map(|point| point.count).collect();
        let mut levels: Vec<u64> = points.iter().map(&value).collect();
        for at in (1..levels.len()).rev() {
            levels[at - 1] = levels[at - 1].min(levels[at]);
        }
        let is_rise = |pair: &[u64]| pair[1] > pair[0];
        let rises = points[1..].iter().zip(levels.windows(2)).filter(|(_, pair)| is_rise(pair));
        let rises = rises.map(|(point, _)| point.count).collect();
        let at_level = points.iter().zip(&levels).filter(|(point, level)| value(point) == **level);
        let at_level: Vec<u64> = at_level.map(|(point, _)| point.count).collect();
        let uses =
            points.windows(2).zip(levels.windows(2)).filter(|(points, levels)| value(&points[0]) > levels[0]);
        let use_of = |count: u64| {
            let after = at_level.partition_point(|&at| at <= count);
            let end = at_level.get(after).copied().unwrap_or(count);
            end - after.checked_sub(1).map_or(count, |before| at_level[before])
        };
        let longest_use = uses.map(|(points, _)| use_of(points[0].count)).max().unwrap_or(0);
        Kept { rises, counts, levels, longest_use }
    }

    /// Removes all slices with a greater count of the mark than `count`.
    fn end_at(&mut self, count: u64) {
        let end = self.counts.partition_point(|&at| at <= count).max(1);
        self.counts.truncate(end);
        self.levels.truncate(end);
        self.rises.retain(|&at| at <= count);
    }

    /// Whether the only rise may be a rise in each of several iterations at the end of the record. In a long
    /// record, the slices of the mark are several iterations apart, so one rise between two slices may be
    /// many. It is one rise if the site made only one allocation, or if no later slice shows a rise.
    fn may_be_several_rises(&self, left_count: u64) -> bool {
        let Some(at) = self.rises.last().and_then(|rise| self.counts.iter().position(|at| at == rise)) else {
            return false;
        };
        let width = at.checked_sub(1).map_or(0, |before| self.counts[at] - self.counts[before]);
        let quiet = self.counts.last().map_or(0, |last| last - self.counts[at]);
        width > 1 && quiet < width && left_count > 1
    }

    fn growth(&self) -> u64 {
        match (self.levels.first(), self.levels.last()) {
            (Some(first), Some(last)) => last - first,
            _ => 0,
        }
    }

    fn span(&self) -> u64 {
        match (self.counts.first(), self.counts.last()) {
            (Some(first), Some(last)) => last - first,
            _ => 0,
        }
    }

    /// Whether every iteration left the same amount of memory behind, so that the kept level rose evenly.
    fn is_even(&self) -> bool {
        let (growth, span) = (u128::from(self.growth()), u128::from(self.span()));
        let steps = self.counts.windows(2).zip(self.levels.windows(2));
        let is_even = |(counts, levels): (&[u64], &[u64])| {
            u128::from(levels[1] - levels[0]) * span == u128::from(counts[1] - counts[0]) * growth
        };
        span > 0 && growth % span == 0 && steps.into_iter().all(is_even)
    }

    /// The kept level (the lowest level at a mark or later) at a position in the judged iterations; `share`
    /// is this position, from 0 to 1. Between two slices, the function interpolates in a straight line.
    fn at(&self, share: f64) -> f64 {
        let Some(&first) = self.counts.first() else { return 0.0 };
        let x = first as f64 + share * self.span() as f64;
        let after = self.counts.partition_point(|&count| count as f64 <= x);
        let Some(before) = after.checked_sub(1) else { return self.levels[0] as f64 };
        let (from, to) = (before, after.min(self.counts.len() - 1));
        let width = self.counts[to] as f64 - self.counts[from] as f64;
        let share = if width > 0.0 { (x - self.counts[from] as f64) / width } else { 0.0 };
        self.levels[from] as f64 + share * (self.levels[to] as f64 - self.levels[from] as f64)
    }

    fn quarters(&self) -> [f64; 4] {
        [0, 1, 2, 3].map(|n| self.at(f64::from(n + 1) / 4.0) - self.at(f64::from(n) / 4.0))
    }

    fn late_pace(&self) -> f64 {
        let [a, b, c, d] = self.quarters();
        (c + d) / (a + b).max(f64::MIN_POSITIVE)
    }

    /// The growth of the kept level (the lowest level at a mark or later); `None`: the pace of this growth
    /// diminishes. `left_count` is the number of allocations that the iterations left behind: the greater
    /// this number, the less the pace depends on chance.
    fn steady(&self, left_count: u64) -> Option<Steady> {
        let events = (self.rises.len() as u64).max(left_count.min(self.growth()));
        let quarters = self.quarters();
        let mean = quarters.iter().sum::<f64>() / 4.0;
        let least = quarters.iter().copied().fold(f64::INFINITY, f64::min);
        let chance = 1.0 / (events as f64).sqrt();
        let late_pace = self.late_pace();
        let is_steady = self.rises.len() as u64 >= LEAST_RISES
            && least > 0.0
            && least >= mean * (0.75 - chance)
            && late_pace >= 0.92 - 1.5 * chance;
        const MANY: u64 = 20;
        const LINEAR: f64 = 0.98;
        is_steady.then(|| Steady { late_pace, is_linear: events >= MANY && self.line_fit() >= LINEAR })
    }

    /// Whether the growth dies away: the kept level (the lowest level at a mark or later) rose little in the
    /// second half of the iterations, and at most once in the last quarter.
    fn dies_away(&self) -> bool {
        const LATE_SHARE: f64 = 0.35;
        let last_quarter = self.counts.first().map_or(0, |first| first + self.span() * 3 / 4);
        let late = self.rises.iter().filter(|&&at| at > last_quarter).count();
        self.late_pace() <= LATE_SHARE && late <= 1
    }

    fn slows_down(&self) -> bool {
        self.late_pace() < 0.9
    }

    /// The share of the variance of the levels that a straight line explains (R²): 1 if the levels lie on a
    /// straight line.
    fn line_fit(&self) -> f64 {
        let n = self.counts.len() as f64;
        let mean = |values: &[u64]| values.iter().map(|&value| value as f64).sum::<f64>() / n;
        let (x_mean, y_mean) = (mean(&self.counts), mean(&self.levels));
        let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
        for (&x, &y) in self.counts.iter().zip(&self.levels) {
            let (x, y) = (x as f64 - x_mean, y as f64 - y_mean);
            (xx, xy, yy) = (xx + x * x, xy + x * y, yy + y * y);
        }
        if xx > 0.0 && yy > 0.0 { xy * xy / (xx * yy) } else { 0.0 }
    }
}

/// The bytes that each iteration adds to a buffer which grows in large steps, like a vector that doubles.
/// `None`: the site does not grow in large steps, or the next step is overdue, so the buffer no longer
/// fills.
///
/// The buffer gets larger when it is full. So the program fills the buffer at this pace: the number of
/// bytes that one step adds, divided by the number of iterations up to the next step. The result is
/// also `None` if the pace of filling was not the same after the last two steps.
fn doubling(points: &[AtMark]) -> Option<f64> {
    const LEAST_STEPS: usize = 4;
    const FEW: u64 = 8;
    let last = points.last().filter(|last| (1..=FEW).contains(&last.live_count))?;
    let steps: Vec<_> = points
        .windows(2)
        .filter(|pair| pair[1].live_bytes != pair[0].live_bytes)
        .map(|pair| (pair[1].count, pair[0].live_bytes, pair[1].live_bytes))
        .collect();
    let grown = steps
        .iter()
        .rev()
        .take_while(|(_, before, after)| *before > 0 && *after as f64 >= LEAST_FACTOR * *before as f64);
    if grown.count() < LEAST_STEPS {
        return None;
    }
    let [.., a, b, c] = steps.as_slice() else { return None };
    let pace = |one: &(u64, u64, u64), next: &(u64, u64, u64)| {
        (one.2 - one.1) as f64 / (next.0.saturating_sub(one.0)).max(1) as f64
    };
    let (before, pace) = (pace(a, b), pace(b, c));
    let is_same = (pace / before - 1.0).abs() <= SAME_PACE;
    let next = c.0 as f64 + (c.2 - c.1) as f64 / pace * (1.0 + SAME_PACE);
    (is_same && (last.count as f64) < next).then_some(pace)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judges a site; `live` gives its live bytes and its live allocations at each mark.
    fn judged(iterations: u64, live: impl Fn(u64) -> (u64, u64)) -> Iterations {
        let point = |n: u64| {
            let (live_bytes, live_count) = live(n);
            AtMark { count: n + 1, live_bytes, live_count }
        };
        let points: Vec<_> = (0..=iterations).map(point).collect();
        judge(&points, warm_up(iterations) as usize)
    }

    #[test]
    fn a_leak_in_each_iteration_is_exact_from_eight_iterations_on() {
        for iterations in [8, 9, 30, 1000] {
            let found = judged(iterations, |n| (5000 + 1024 * n, 7 + n));
            assert_eq!((found.verdict, found.is_exact, found.is_strict), (Verdict::Leak, true, true));
            assert_eq!(found.per_iteration(), "1,024 bytes in 1 allocation per iteration");
        }
        assert_eq!(
            judged(30, |n| (100 * n, 1)).per_iteration(),
            "100 bytes per iteration, in an allocation that grows"
        );
        assert_eq!(judged(30, |n| (0, n)).per_iteration(), "0 bytes in 1 allocation per iteration");
    }

    #[test]
    fn a_leak_in_every_tenth_iteration_takes_five_of_them() {
        let leak = |n: u64| (640 * (n / 10), n / 10);
        let found = judged(100, leak);
        assert_eq!((found.verdict, found.is_exact), (Verdict::Leak, false), "{}", found.why);
        assert!((found.bytes - 64.0).abs() < 10.0, "{}", found.bytes);
        let few = judged(40, leak);
        assert_eq!(few.verdict, Verdict::Undecided, "{}", few.why);
        assert!(few.needed.is_some_and(|needed| judged(needed, leak).verdict == Verdict::Leak), "{few:?}");
    }

    /// In a record of 300 iterations, only each eighth iteration after the 256th has a slice.
    #[test]
    fn growth_in_the_last_iterations_between_two_slices_is_undecided() {
        let at = |leak: fn(u64) -> u64| {
            let counts = (0..=256).chain((264..=296).step_by(8)).chain([300]);
            let point = |count| AtMark { count, live_bytes: 100 * leak(count), live_count: leak(count) };
            let points: Vec<_> = counts.map(point).collect();
            judge(&points, warm_up(300) as usize)
        };
        let found = at(|n| 7 + n.saturating_sub(296));
        assert_eq!((found.verdict, found.needed.is_some()), (Verdict::Undecided, true), "{}", found.why);
        assert_eq!(at(|n| 7 + u64::from(n > 296)).verdict, Verdict::Clean, "one allocation");
        assert_eq!(at(|n| 7 + 8 * u64::from(n > 270)).verdict, Verdict::Clean, "the growth has ended");
    }

    #[test]
    fn a_cache_that_fills_is_no_leak() {
        assert_eq!(judged(100, |n| (48 * n.min(30), n.min(30))).verdict, Verdict::Clean);
        assert_eq!(judged(100, |n| (48 * n.min(60), n.min(60))).verdict, Verdict::Clean);
        // Each iteration looks up random keys in a cache; the fuller the cache is, the fewer of these keys
        // are new.
        let filled = |n: u64, size: f64| (size * (1.0 - (-(n as f64) / size).exp())) as u64;
        for size in [5.0, 20.0, 60.0] {
            let found = judged(300, |n| (48 * filled(n, size), filled(n, size)));
            assert_eq!(found.verdict, Verdict::Clean, "{size}: {}", found.why);
        }
        let found = judged(300, |n| (48 * filled(n, 200.0), filled(n, 200.0)));
        assert_eq!(found.verdict, Verdict::Undecided, "{}", found.why);
    }

    #[test]
    fn a_vector_that_doubles_for_ever_is_a_leak_and_one_that_stopped_is_none() {
        let doubling = |n: u64| ((8 * n).next_power_of_two().max(32), 1);
        for iterations in [100, 250, 300, 1000] {
            let found = judged(iterations, doubling);
            assert_eq!(found.verdict, Verdict::Leak, "{iterations}: {}", found.why);
            assert!((found.bytes - 8.0).abs() < 1.0, "{}", found.bytes);
        }
        for iterations in [100, 1000] {
            assert_eq!(judged(iterations, |n| doubling(n.min(20))).verdict, Verdict::Clean);
        }
    }

    #[test]
    fn temporary_memory_and_one_step_are_no_leak() {
        for verdict in [
            judged(100, |_| (4096, 3)),
            judged(100, |n| (1000 * (n % 7), n % 7)),
            judged(100, |n| (if n < 50 { 0 } else { 1 << 20 }, 1)),
            judged(100, |n| (1024 * n.min(10), n.min(10))),
            judged(100, |n| (100_000 - 1000 * n, 100 - n)),
        ] {
            assert_eq!(verdict.verdict, Verdict::Clean, "{}", verdict.why);
        }
    }

    #[test]
    fn a_leak_shows_below_temporary_memory() {
        let found = judged(200, |n| (64 * n + 100_000 * (n % 5), n + n % 5));
        assert_eq!(found.verdict, Verdict::Leak, "{}", found.why);
    }

    #[test]
    fn averages_are_told_with_the_digits_that_matter() {
        let told = [102.4, 0.1, 12_345.67, 0.034, 3.0].map(number);
        assert_eq!(told, ["102.4", "0.10", "12,345.7", "0.034", "3"]);
    }
}
