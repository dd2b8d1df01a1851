//! Tests verdicts on generated series whose right verdict is known: short demos, curves that grow in steps,
//! sites that begin at different times, and short records.

use edleak_model::classify::{Confidence, Judgement, Model, Verdict, judge};
use edleak_model::growth_class::Class;
use edleak_model::levels::Levels;
use edleak_model::series::{Births, Point, Series, SeriesBuilder};
use edleak_model::work::WorkBuilder;
use std::sync::Arc;

/// A site that has `count(slice)` live allocations with `bytes(slice)` bytes in total at each slice. If the
/// count falls, the program has freed allocations.
fn series(slices: u64, bytes: impl Fn(u64) -> u64, count: impl Fn(u64) -> u64) -> Series {
    let mut builder = SeriesBuilder::new();
    let (mut allocs, mut frees, mut before) = (0, 0, 0);
    for slice in 0..slices {
        let now = count(slice);
        allocs += now.saturating_sub(before);
        frees += before.saturating_sub(now);
        before = now;
        builder.push(Point { live_bytes: bytes(slice), live_count: now, allocs, frees });
    }
    builder.finish()
}

/// Judges a site whose allocations have 100 bytes each.
fn of_hundred(slices: u64, count: impl Fn(u64) -> u64 + Copy) -> Judgement {
    judge(&series(slices, |slice| 100 * count(slice), count), 0.1, Model::Growth)
}

#[test]
fn one_allocation_a_second_is_a_linear_leak_in_every_phase_of_an_eight_second_demo() {
    for every in 1..=10 {
        for phase in 0..every {
            let judged = of_hundred(80, |slice| 1 + (slice + phase) / every);
            assert_eq!(
                judged.verdict,
                Verdict::Leak,
                "every {every} slices, phase {phase}: {:?}",
                judged.why
            );
            assert_eq!(judged.class, Class::Linear, "every {every} slices, phase {phase}");
            let truth = 100.0 * 80.0 / every as f64;
            let error = (judged.leak_bytes as f64 - truth).abs() / truth;
            assert!(error < 0.25, "every {every}, phase {phase}: {} of {truth} bytes", judged.leak_bytes);
            assert!((judged.rate_bytes_per_s * 8.0 / truth - 1.0).abs() < 0.4);
        }
    }
}

#[test]
fn slices_that_jitter_against_the_leak_change_nothing() {
    for seed in 0..200u64 {
        let wobble = |slice: u64| (slice * 7919 + seed * 104_729) % 3;
        let judged = of_hundred(80, |slice| 1 + (slice + seed % 8 + wobble(slice / 8)) / 8);
        assert_eq!(judged.verdict, Verdict::Leak, "seed {seed}: {:?}", judged.why);
    }
}

#[test]
fn a_cache_that_fills_within_three_of_eight_seconds_is_not_a_leak() {
    for fill in 1..=30 {
        for step in [1, 4, 10] {
            let judged = of_hundred(80, |slice| 1 + slice.min(fill) / step * step);
            assert_eq!(judged.verdict, Verdict::NoLeak, "fills in {fill} slices by {step}: {:?}", judged.why);
            assert!(judged.class <= Class::Log);
        }
        let filling =
            of_hundred(80, |slice| (512.0 * (1.0 - (-(slice as f64) / (0.3 * fill as f64)).exp())) as u64);
        assert_eq!(filling.verdict, Verdict::NoLeak, "fills in about {fill} slices: {:?}", filling.why);
    }
}

#[test]
fn leaked_bytes_of_a_site_without_frees_are_exact() {
    // The load of the program comes in bursts; the site leaks little without load and more under load.
    let load = |slice: u64| if (slice / 10).is_multiple_of(3) { 4 + slice % 5 } else { 1 };
    let bursts = |slice: u64| (0..=slice).map(load).sum();
    let judged = of_hundred(300, bursts);
    assert_eq!(judged.verdict, Verdict::Leak, "{:?}", judged.why);
    assert_eq!(judged.leak_bytes, 100 * (bursts(299) - bursts(0)));
    // A leak that begins in the middle of the record.
    let late = |slice: u64| 40 + slice.saturating_sub(150) * 2;
    let judged = of_hundred(300, late);
    assert_eq!(
        (judged.verdict, judged.leak_bytes),
        (Verdict::Leak, 100 * (late(299) - 40)),
        "{:?}",
        judged.why
    );
    // Memory that the site loads at the start does not count as leaked.
    let loads = |slice: u64| 60 * slice.min(8) + slice * 2;
    let judged = of_hundred(300, loads);
    let truth = 100.0 * 2.0 * 300.0;
    assert_eq!(judged.verdict, Verdict::Leak, "{:?}", judged.why);
    assert!((judged.leak_bytes as f64 - truth).abs() < 0.25 * truth, "{} of {truth}", judged.leak_bytes);
}

/// The recorder took the ages of the surviving allocations while all of the memory was live, so these ages
/// show a leak. But at the end of the record, the program has freed all of the memory.
#[test]
fn survivors_freed_before_the_end_are_undecided() {
    let mut builder = SeriesBuilder::new();
    for slice in 0..500u64 {
        let live = if slice < 490 { slice } else { 0 };
        let frees = if slice < 490 { 0 } else { 490 };
        builder.push(Point { live_bytes: 100 * live, live_count: live, allocs: slice.min(490), frees });
    }
    builder.births(Births {
        epoch_live_bytes: vec![3000; 16],
        epoch_live_count: vec![30; 16],
        epoch_allocs: vec![30; 16],
        last_free_slice: -1.0,
        max_age_at_free: 0.0,
    });
    let judged = judge(&builder.finish(), 0.1, Model::Growth);
    assert_eq!((judged.verdict, judged.leak_bytes), (Verdict::Undecided, 0), "{:?}", judged.why);
    assert!(judged.why[0].contains("stayed until near its end"), "{:?}", judged.why);
}

#[test]
fn a_buffer_allocated_once_is_constant() {
    let judged = of_hundred(80, |_| 41);
    assert_eq!((judged.verdict, judged.class, judged.leak_bytes), (Verdict::NoLeak, Class::Constant, 0));
    let late = of_hundred(80, |slice| u64::from(slice > 50));
    assert_eq!(late.verdict, Verdict::NoLeak);
}

#[test]
fn balanced_churn_is_not_a_leak() {
    for seed in 0..100u64 {
        let judged = of_hundred(80, |slice| 16 + (slice * 2_654_435_761 + seed * 40_503) % 5);
        assert_eq!(judged.verdict, Verdict::NoLeak, "seed {seed}: {:?}", judged.why);
    }
}

#[test]
fn a_buffer_that_is_reallocated_ever_larger_is_a_leak_though_its_count_never_moves() {
    for (start, step) in [(100, 100), (0, 64), (100_000, 1000)] {
        let grows = series(80, |slice| start + step * (slice + 1), |_| 1);
        let judged = judge(&grows, 0.1, Model::Growth);
        assert_eq!((judged.verdict, judged.class), (Verdict::Leak, Class::Linear), "{:?}", judged.why);
        assert!(judged.leak_bytes.abs_diff(80 * step) < 8 * step, "{}", judged.leak_bytes);
    }
    let capped = judge(&series(80, |slice| 100 + 100 * slice.min(40), |_| 1), 0.1, Model::Growth);
    assert_eq!(capped.verdict, Verdict::NoLeak, "{:?}", capped.why);
}

/// Until the next doubling of a buffer is due, a buffer that grows for ever looks like a buffer that was
/// loaded once and then stays the same.
#[test]
fn a_buffer_that_doubles_is_undecided_while_its_next_doubling_may_come() {
    for slices in [100u64, 600, 3000] {
        for (until, verdict) in [(0.2, Verdict::NoLeak), (0.45, Verdict::NoLeak), (1.0, Verdict::Undecided)] {
            let loaded = |slice: u64| ((slice + 1) as f64).min(until * slices as f64) as u64;
            let judged = judge(
                &series(slices, |slice| 64 * loaded(slice).next_power_of_two(), |_| 1),
                0.1,
                Model::Growth,
            );
            assert_eq!(judged.verdict, verdict, "{slices} slices until {until}: {:?}", judged.why);
        }
    }
}

#[test]
fn growth_that_feeds_itself_is_exponential() {
    let judged = of_hundred(200, |slice| (10.0 * (slice as f64 / 40.0).exp()) as u64);
    assert_eq!((judged.verdict, judged.class), (Verdict::Leak, Class::Exp));
}

/// The series of a web server on node: about ten live allocations at first, about fourteen after the first
/// wave of requests.
#[test]
fn a_handful_more_amid_much_churn_is_undecided() {
    const LIVE: [u64; 60] = [
        12, 20, 20, 20, 6, 8, 11, 10, 10, 10, 10, 10, 8, 11, 8, 10, 10, 9, 10, 10, 10, 10, 9, 10, 10, 9, 13,
        10, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 17, 14, 14, 14, 14, 14, 14, 14, 14, 16, 14, 14, 14,
        14, 14, 14, 14, 15, 15, 17, 17,
    ];
    let judged = |times: u64, churn: u64| {
        let mut builder = SeriesBuilder::new();
        for slice in 0..600u64 {
            let live_count = times * LIVE[slice as usize / 10];
            let frees = churn * slice;
            builder.push(Point {
                live_bytes: 128 * live_count,
                live_count,
                allocs: frees + live_count,
                frees,
            });
        }
        judge(&builder.finish(), 0.02, Model::Growth)
    };
    let few = judged(1, 4);
    assert_eq!(few.verdict, Verdict::Undecided, "{:?}", few.why);
    assert!(few.why[0].starts_with("5 more allocations are live"), "{:?}", few.why);
    // With ten times as many allocations, the curve is a leak. With few allocations, the curve is a leak if
    // the site frees none of them.
    assert_eq!(judged(10, 4).verdict, Verdict::Leak);
    assert_eq!(judged(1, 0).verdict, Verdict::Leak);
}

/// A program that was recorded for only one second may still have been starting, so no leak gets the
/// confidence `Strict`.
#[test]
fn nothing_is_beyond_doubt_in_a_second() {
    let at = |period_s: f64| {
        judge(&series(100, |slice| 4096 * slice, |slice| 16 * slice), period_s, Model::Growth)
    };
    assert_eq!(at(0.02).confidence, Some(Confidence::Strict));
    let young = at(0.01);
    assert_eq!((young.verdict, young.confidence), (Verdict::Leak, Some(Confidence::Suspect)));
    assert!(young.why.last().is_some_and(|why| why.contains("2 s")), "{:?}", young.why);
    assert_eq!((young.leak_bytes, young.class), (at(0.02).leak_bytes, Class::Linear));
}

#[test]
fn sure_leak_is_strict_and_has_reasons() {
    let judged = of_hundred(600, |slice| 7 * slice);
    assert_eq!(judged.confidence, Some(Confidence::Strict));
    assert!(judged.why.iter().any(|why| why == "grew in all 8 parts of its lifetime"), "{:?}", judged.why);
    assert!(judged.why.len() >= 2);
}

#[test]
fn a_record_too_short_is_undecided_never_clean() {
    for slices in 0..12 {
        for count in [|_| 5u64, |slice| 5 * slice, |slice| 5 / (slice + 1)] {
            let judged = of_hundred(slices, count);
            assert_eq!(judged.verdict, Verdict::Undecided, "{slices} slices");
            assert!(judged.record_longer_s.expect("says how much longer") > 0.0);
            assert_eq!((judged.leak_bytes, judged.confidence), (0, None));
        }
    }
    assert_eq!(of_hundred(12, |_| 5).verdict, Verdict::NoLeak);
}

#[test]
fn a_site_that_turns_up_at_the_end_of_a_long_record_is_not_a_short_record() {
    for (absent, own) in [(3600u64, 0), (3600, 1), (3600, 5), (3600, 11), (3600, 100), (79, 1), (70, 10)] {
        let mut builder = SeriesBuilder::new();
        builder.absent(absent);
        for slice in 0..own {
            builder.push(Point {
                live_bytes: 64 * (slice + 1),
                live_count: slice + 1,
                allocs: slice + 1,
                frees: 0,
            });
        }
        let judged = judge(&builder.finish(), 1.0, Model::Growth);
        assert_eq!(judged.verdict, Verdict::NoLeak, "{own} slices after {absent}: {:?}", judged.why);
    }
}

#[test]
fn a_leak_that_starts_in_mid_record_is_judged_on_its_own_slices() {
    let mut builder = SeriesBuilder::new();
    builder.absent(40);
    for slice in 0..40u64 {
        builder.push(Point {
            live_bytes: 64 * (slice + 1),
            live_count: slice + 1,
            allocs: slice + 1,
            frees: 0,
        });
    }
    let judged = judge(&builder.finish(), 1.0, Model::Growth);
    assert_eq!((judged.verdict, judged.class), (Verdict::Leak, Class::Linear), "{:?}", judged.why);
}

#[test]
fn runs_and_single_pushes_give_the_same_judgement_to_the_bit() {
    let curve = |slice: u64| 1 + slice / 9;
    let single = series(3000, |slice| 100 * curve(slice), curve);
    let mut builder = SeriesBuilder::new();
    for step in 0..=2999 / 9 {
        let (count, repeat) = (1 + step, 9.min(3000 - 9 * step));
        builder
            .push_run(Point { live_bytes: 100 * count, live_count: count, allocs: count, frees: 0 }, repeat);
    }
    assert_eq!(judge(&single, 1.0, Model::Growth), judge(&builder.finish(), 1.0, Model::Growth));
}

#[test]
fn hostile_counters_give_finite_figures() {
    let extremes = [0, 1, u64::MAX, u64::MAX / 3];
    for salt in 0..200u64 {
        let mut builder = SeriesBuilder::new();
        for slice in 0..(13 + salt % 150) {
            let pick = |by: u64| extremes[((slice * by + salt * 31) % 4) as usize];
            let p = Point { live_bytes: pick(7), live_count: pick(3), allocs: pick(5), frees: pick(1) };
            builder.push_run(p, 1 + pick(11) % 1_000_000_007);
        }
        builder.births(Births {
            epoch_live_bytes: vec![extremes[(salt % 4) as usize]; 16],
            epoch_live_count: vec![extremes[(salt / 4 % 4) as usize]; 16],
            epoch_allocs: vec![0; 16],
            last_free_slice: f64::NAN,
            max_age_at_free: f64::INFINITY,
        });
        let built = builder.finish();
        for model in [Model::Growth, Model::LeakFactor] {
            for period_s in [0.0, 1.0, f64::MAX, f64::NAN] {
                let judged = judge(&built, period_s, model);
                assert!(judged.rate_bytes_per_s.is_finite() && judged.rate_bytes_per_s >= 0.0);
                assert!(judged.record_longer_s.is_none_or(|s| s.is_finite() && s >= 0.0));
            }
        }
        assert!(Levels::of(&built).at(40).iter().all(|v| v.is_finite()));
    }
}

#[test]
fn rate_counts_from_the_start_of_the_leak() {
    // The site is absent for 300 slices of 0.1 s. After these 300 slices, the site leaks a kilobyte per slice
    // for 150 slices.
    let mut builder = SeriesBuilder::new();
    builder.absent(300);
    for slice in 1..=150 {
        builder.push(Point { live_bytes: 1000 * slice, live_count: slice, allocs: slice, frees: 0 });
    }
    let unseen = judge(&builder.finish(), 0.1, Model::Growth);
    // A second site, `hinged`, also grows only in the last 150 slices, but is present from the start of the
    // record.
    let hinged = of_hundred(450, |slice| 20 + 10 * slice.saturating_sub(300));
    for (judged, most) in [(unseen, 0.1), (hinged, 0.25)] {
        assert_eq!(judged.verdict, Verdict::Leak, "{:?}", judged.why);
        assert!((judged.rate_bytes_per_s / 10_000.0 - 1.0).abs() < most, "{judged:?}");
        assert!((judged.began_s - 30.0).abs() < 2.0, "{judged:?}");
    }
    assert!(of_hundred(80, |slice| slice).began_s < 1e-9);
}

// ---------------------------------------------------------------- the work of the whole program

/// Judges a site that has `count(slice)` live allocations of 100 bytes, in a program that makes `pace(slice)`
/// allocations in each slice.
fn beside_work(slices: u64, count: impl Fn(u64) -> u64, pace: impl Fn(u64) -> u64) -> Judgement {
    let mut work = WorkBuilder::new(slices);
    let mut allocs = 0;
    for slice in 0..slices {
        allocs += pace(slice);
        work.push(slice, allocs);
    }
    let site = series(slices, |slice| 100 * count(slice), &count).beside(Arc::new(work.finish()));
    judge(&site, 0.02, Model::Growth)
}

/// The number of allocations that a program makes in each slice: three in the first `until` slices, in which
/// it has load, and `then` after that.
fn load(until: u64, then: u64) -> impl Fn(u64) -> u64 {
    move |slice| if slice < until { 3 } else { then }
}

#[test]
fn growth_that_stopped_with_the_work_is_undecided_with_the_reason() {
    for slices in [60u64, 100, 400, 1500] {
        for quiet in [15, 20, 33, 45, 60] {
            let busy = slices - slices * quiet / 100;
            let judged = beside_work(slices, |slice| slice.min(busy), load(busy, 0));
            assert_eq!(judged.verdict, Verdict::Undecided, "{slices}, {quiet} %: {:?}", judged.why);
            let said = "the program did next to nothing in the last";
            assert!(judged.why[0].starts_with(said), "{:?}", judged.why);
            assert!(judged.open_bytes >= 95 * busy, "{} of {busy}", judged.open_bytes);
        }
    }
}

#[test]
fn growth_that_stopped_while_the_work_went_on_has_stopped() {
    for (slices, full, idle_from) in [(400u64, 150, 400), (400, 150, 300), (400, 200, 320), (1500, 500, 900)]
    {
        let judged = beside_work(slices, |slice| slice.min(full), load(idle_from, 0));
        assert_eq!(judged.verdict, Verdict::NoLeak, "{slices}, full at {full}: {:?}", judged.why);
    }
    // The program loads tables when it starts, and then waits for requests.
    let judged = beside_work(400, |slice| slice.min(100), load(100, 0));
    assert_eq!(judged.verdict, Verdict::NoLeak, "{:?}", judged.why);
}

#[test]
fn health_checks_and_a_load_that_ramps_down_are_not_the_work_that_goes_on() {
    // The program makes three allocations per slice under load, and then one allocation in every other slice.
    let judged = beside_work(600, |slice| slice.min(400), |slice| if slice < 400 { 3 } else { slice % 2 });
    assert_eq!(judged.verdict, Verdict::Undecided, "{:?}", judged.why);
    // In the second half, the load falls from 30 allocations per slice to 0. The site keeps one allocation
    // for every three allocations of the program, so its growth falls, too.
    let pace = |slice: u64| if slice < 200 { 30 } else { 30 * (400 - slice) / 200 };
    let kept: Vec<u64> = (0..400)
        .scan(0, |sum, slice| {
            *sum += pace(slice) / 3;
            Some(*sum)
        })
        .collect();
    let judged = beside_work(400, |slice| kept[slice as usize], pace);
    assert_eq!(judged.verdict, Verdict::Undecided, "{:?}", judged.why);
}

#[test]
fn pauses_between_bursts_of_load_hide_nothing() {
    let bursts = |slice: u64| u64::from(slice % 100 < 50 && slice < 450);
    let kept = |slice: u64| (0..=slice).map(bursts).sum();
    let judged = beside_work(600, kept, |slice| 3 * bursts(slice));
    assert!(judged.verdict != Verdict::NoLeak, "{:?}", judged.why);
}

#[test]
fn frees_after_the_work_are_undecided_only_near_the_end() {
    // The program has load for 300 slices, then a teardown, and then almost no work until the end.
    let freed = |teardown: u64| {
        move |slice: u64| match slice {
            ..300 => slice,
            _ => 300_u64.saturating_sub((slice - 300) * 300 / teardown),
        }
    };
    for (slices, teardown) in [(312u64, 10), (340, 35), (380, 70), (400, 100)] {
        let judged = beside_work(slices, freed(teardown), load(300, 0));
        assert_eq!(judged.verdict, Verdict::Undecided, "{slices}: {:?}", judged.why);
        assert!(judged.open_bytes >= 28_000, "{}", judged.open_bytes);
    }
    let judged = beside_work(600, freed(10), load(300, 0));
    assert_eq!(judged.verdict, Verdict::NoLeak, "{:?}", judged.why);
}

#[test]
fn growth_in_fewer_slices_of_work_than_a_verdict_needs_is_undecided() {
    let judged = beside_work(20, |slice| 20 * slice.min(9), load(9, 0));
    assert_eq!(judged.verdict, Verdict::Undecided, "{:?}", judged.why);
    assert!(judged.why.iter().any(|why| why.starts_with("the program worked in only")), "{:?}", judged.why);
}

#[test]
fn burst_of_work_beside_one_jump_is_not_a_leak() {
    let judged = beside_work(
        400,
        |slice| if slice < 200 { 0 } else { 5000 },
        |slice| if slice == 200 { 20_000 } else { 10 },
    );
    assert_eq!(judged.verdict, Verdict::NoLeak, "{:?}", judged.why);
}

// ---------------------------------------------------------------- allocations of 0 bytes

#[test]
fn allocations_of_no_bytes_leak_by_their_count() {
    let judged = judge(&series(200, |_| 0, |slice| 50 * slice), 0.02, Model::Growth);
    assert_eq!((judged.verdict, judged.class), (Verdict::Leak, Class::Linear), "{:?}", judged.why);
    assert!(judged.leak_bytes.abs_diff(32 * 50 * 200) < 32 * 50 * 20, "{}", judged.leak_bytes);
    assert!(judged.why.iter().any(|why| why.contains("ask for 0 bytes")), "{:?}", judged.why);
    let full = judge(&series(200, |_| 0, |slice| 50 * slice.min(80)), 0.02, Model::Growth);
    assert_eq!(full.verdict, Verdict::NoLeak, "{:?}", full.why);
    // A single allocation of 0 bytes does not count as growth.
    let once = judge(&series(200, |_| 0, |slice| u64::from(slice > 90)), 0.02, Model::Growth);
    assert_eq!(once.verdict, Verdict::NoLeak, "{:?}", once.why);
}
