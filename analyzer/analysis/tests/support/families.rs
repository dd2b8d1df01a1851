//! Mechanisms that change the memory of a simulated site. Some of the mechanisms leak, and the others do not.
//!
//! A mechanism counts as a leak if the site retains new allocations until the end of the record, at a rate
//! that does not diminish.

use super::world::{FOREVER, World};
use std::f64::consts::TAU;

/// A mechanism: its name, whether it leaks, the shape of its growth, and the function that adds its
/// allocations to a simulated site.
pub(crate) type Family = (&'static str, bool, &'static str, fn(&mut World));

/// Adds noise (random allocations and frees) to a site. A leak of `moved` allocations stays visible
/// in this noise.
pub(crate) fn beside_noise(w: &mut World, moved: f64) {
    let visible = w.rng.between(6.0, 14.0);
    w.noise(moved, visible);
}

pub(crate) fn steady(w: &mut World, share: f64) {
    let size = w.size * share;
    w.leak(size, |_| 1.0);
}

/// Adds `size` allocations that are never freed. At time t of the record, the site has made about `size`
/// times `curve(t)` allocations; `curve` goes from 0 to 1.
pub(crate) fn follow(w: &mut World, size: f64, curve: impl Fn(f64) -> f64) {
    let steps = 400.min(2 * w.n).max(60);
    let at = |k: usize| k as f64 / steps as f64;
    let mut owed = 0.0;
    for k in 0..steps {
        owed += size * (curve(at(k + 1)) - curve(at(k)));
        if owed >= 1.0 {
            let jitter = w.rng.unit() / steps as f64;
            w.add((at(k) + jitter).min(0.9999), FOREVER, owed.floor());
            owed -= owed.floor();
        }
    }
}

/// Each item of `path` has an instant and a number of allocations. At each instant, the site frees its
/// previous allocations and makes the given number of new allocations.
pub(crate) fn levels(w: &mut World, path: &[(f64, f64)]) {
    for (i, &(at, level)) in path.iter().enumerate() {
        let until = path.get(i + 1).map_or(FOREVER, |next| next.0);
        w.add(at, until, level);
    }
}

/// Simulates a cache: the program looks up random keys, and the cache allocates memory for each key that it
/// does not have yet. `rate_of_new` is the relative rate of new keys at each time of the record; if it is
/// always 1, the cache gets about `keys` keys.
fn cache(w: &mut World, keys: f64, rate_of_new: impl Fn(f64) -> f64) {
    let noise = w.size;
    w.arrivals(keys, rate_of_new, |_, _| FOREVER);
    w.noise(noise, 0.0);
}

/// Allocates at a steady rate. At each instant of `ends`, the site frees its allocations, but keeps the share
/// `left` of them.
pub(crate) fn sawtooth(w: &mut World, ends: &[f64], per_record: f64, left: f64) {
    let ends = ends.to_vec();
    let kept = w.arrivals(
        per_record,
        |_| 1.0,
        move |rng, at| {
            let end = ends.iter().copied().find(|&end| end > at).unwrap_or(FOREVER);
            if rng.unit() < left { FOREVER } else { end - at }
        },
    );
    w.leaked += kept;
}

pub(crate) fn cycles(w: &mut World, low: f64, high: f64, jitter: f64) -> Vec<f64> {
    let (period, mut at, mut ends) = (1.0 / w.rng.between(low, high), 0.0, Vec::new());
    at -= period * w.rng.unit();
    while at < 1.0 {
        at += period * (1.0 + jitter * (w.rng.unit() - 0.5));
        ends.push(at);
    }
    ends
}

/// The ways in which memory grows in the published benchmark (the labelled corpus). They are
/// programmed again here and share no code with the benchmark.
pub(crate) const KNOWN: &[Family] = &[
    ("leak_linear", true, "linear", |w| {
        steady(w, 1.0);
        let s = w.size;
        beside_noise(w, s)
    }),
    ("leak_tiny_noise", true, "linear", |w| {
        steady(w, 1.0);
        let (v, life) = (w.rng.between(5.0, 12.0), w.rng.between(0.01, 0.04));
        let sd = w.size / v / (12.0 * (2.0 * life * w.n as f64 + 1.0) / w.n as f64).sqrt();
        w.churn(sd, life);
    }),
    ("leak_poisson_burst", true, "linear", |w| {
        let events = w.rng.between(10.0, 30.0);
        let (each, mut at) = (w.size / events, 0.0);
        loop {
            at += w.rng.exponential(1.0 / events);
            if at >= 1.0 {
                break;
            }
            let e = w.rng.exponential(each).max(1.0);
            w.leaked += w.add(at, FOREVER, e);
        }
        let s = w.size;
        beside_noise(w, s);
    }),
    ("leak_batch_step", true, "linear", |w| {
        let (events, phase) = (w.rng.between(6.0, 18.0), w.rng.unit());
        for k in 0..events as usize {
            let at = (k as f64 + phase) / events;
            let each = w.size / events;
            w.leaked += w.add(at, FOREVER, each);
        }
        let s = w.size;
        beside_noise(w, s);
    }),
    ("leak_accel", true, "exp", |w| {
        let p = w.rng.between(1.0, 2.0);
        let size = w.size;
        w.leak(size * (p + 1.0), |x| x.powf(p));
        beside_noise(w, size);
    }),
    ("leak_exp", true, "exp", |w| {
        let k = w.rng.between(2.5, 5.0);
        let size = w.size;
        w.leak(size * k, |x| (k * (x - 1.0)).exp());
        beside_noise(w, size);
    }),
    ("leak_late_start", true, "other", |w| {
        let h = w.rng.between(0.2, 0.6);
        let size = w.size;
        w.leak(size / (1.0 - h), |x| f64::from(u8::from(x > h)));
        beside_noise(w, size);
    }),
    ("leak_ratchet", true, "linear", |w| {
        let (c, left) = (cycles(w, 6.0, 20.0, 0.4), w.rng.between(0.15, 0.5));
        let size = w.size;
        sawtooth(w, &c, size / left, left);
    }),
    ("leak_big_base", true, "linear", |w| {
        let b = w.size * w.rng.scale(5.0, 100.0);
        w.add(0.0, FOREVER, b);
        steady(w, 1.0);
        let s = w.size;
        beside_noise(w, s);
    }),
    ("leak_sawtooth", true, "linear", |w| {
        let c = cycles(w, 8.0, 25.0, 0.3);
        let teeth = w.size * w.rng.between(2.0, 8.0);
        sawtooth(w, &c, teeth, 0.0);
        w.leaked = 0.0;
        steady(w, 1.0);
    }),
    ("leak_diurnal", true, "linear", |w| {
        let (periods, amplitude, phase) = (w.rng.between(2.5, 6.0), w.rng.between(0.1, 0.4), w.rng.unit());
        let life = 0.02;
        let pop = w.size * amplitude / 0.8;
        w.arrivals(
            pop / life,
            |x| 1.0 + 0.8 * (TAU * (periods * x + phase)).sin(),
            |r, _| r.exponential(life),
        );
        w.leaked = 0.0;
        steady(w, 1.0);
    }),
    ("leak_fraction", true, "linear", |w| {
        let (share, life) = (w.rng.scale(0.02, 0.3), w.rng.scale(0.005, 0.03));
        let size = w.size;
        let mut kept = 0.0;
        kept += w.arrivals(
            size / share,
            |_| 1.0,
            |r, _| if r.unit() < share { FOREVER } else { r.exponential(life) },
        );
        w.leaked += kept;
    }),
    ("leak_cache_plus", true, "linear", |w| {
        let (t, a) = (w.rng.between(0.03, 0.12), w.rng.between(0.5, 2.0));
        let (size, keys) = (w.size, w.size * a);
        follow(w, keys, |x| 1.0 - (-x / t).exp());
        steady(w, 1.0);
        beside_noise(w, size);
    }),
    ("leak_decay_plus", true, "linear", |w| {
        let (t, a) = (w.rng.between(0.05, 0.2), w.rng.between(0.3, 1.2));
        for _ in 0..200 {
            let (d, c) = (w.rng.exponential(t), w.size * a / 200.0);
            w.add(0.0, d, c);
        }
        steady(w, 1.0);
        let s = w.size;
        beside_noise(w, s);
    }),
    ("leak_oneshot_plus", true, "linear", |w| {
        let (at, c) = (w.rng.between(0.1, 0.8), w.size * w.rng.between(0.3, 1.2));
        w.add(at, FOREVER, c);
        steady(w, 1.0);
        let s = w.size;
        beside_noise(w, s);
    }),
    ("leak_queue_backlog", true, "linear", |w| {
        // Requests arrive faster than a FIFO server serves them. A request that arrives at time t is freed at
        // time t/s, where s is the share of the requests that the server serves in time.
        let s = w.rng.between(0.4, 0.85);
        let size = w.size;
        w.arrivals(size / (1.0 - s), |_| 1.0, |_, at| at / s - at);
        w.leaked = size * w.unit_bytes();
    }),
    ("constant", false, "constant", |w| {
        let c = w.size;
        w.add(0.0, FOREVER, c);
    }),
    ("sporadic_small", false, "constant", |w| {
        for _ in 0..8 {
            let at = w.rng.unit();
            w.add(at, at + 0.01, 3.0);
        }
    }),
    ("noise_white", false, "constant", |w| {
        let s = w.size;
        w.churn(s * 0.1, 0.5 / w.n as f64)
    }),
    ("noise_ar1", false, "constant", |w| {
        let (s, l) = (w.size, w.rng.scale(0.005, 0.06));
        w.churn(s * 0.1, l)
    }),
    ("cache_log", false, "log", |w| {
        let k = w.rng.scale(25.0, 1000.0);
        cache(w, w.size / 1f64.mul_add(k, 1.0).ln() * k, |x| 1.0 / (1.0 + k * x));
    }),
    ("cache_satexp", false, "log", |w| {
        let t = w.rng.between(0.03, 0.28);
        cache(w, w.size / t, |x| (-x / t).exp());
    }),
    ("dedupe_sqrt", false, "log", |w| {
        let p = w.rng.between(0.4, 0.55);
        let size = w.size;
        follow(w, size, |x| x.powf(p));
        w.noise(size, 0.0);
    }),
    ("lru_churn", false, "log", |w| {
        let fill = w.rng.between(0.1, 0.5);
        let size = w.size;
        w.arrivals(size / fill, |_| 1.0, |_, _| fill);
        w.noise(size, 0.0);
    }),
    ("sawtooth_gc", false, "other", |w| {
        let (c, size) = (cycles(w, 4.0, 30.0, 0.0), w.size);
        sawtooth(w, &c, size * 10.0, 0.0);
    }),
    ("sawtooth_irregular", false, "other", |w| {
        let (c, size) = (cycles(w, 6.0, 30.0, 1.2), w.size);
        sawtooth(w, &c, size * 10.0, 0.0);
    }),
    ("diurnal", false, "other", |w| {
        let (periods, phase, life) = (w.rng.between(1.8, 6.0), w.rng.unit(), 0.02);
        let pop = w.size;
        w.arrivals(
            pop / life,
            |x| 1.0 + 0.8 * (TAU * (periods * x + phase)).sin(),
            |r, _| r.exponential(life),
        );
    }),
    ("warmup_flat", false, "log", |w| {
        let h = w.rng.between(0.03, 0.4);
        let size = w.size;
        follow(w, size, |x| (x / h).min(1.0));
        w.noise(size, 0.0);
    }),
    ("one_shot_step", false, "other", |w| {
        let (at, size) = (w.rng.between(0.1, 0.93), w.size);
        w.add(at, FOREVER, size);
        w.noise(size, 0.0);
    }),
    ("pool_ramp", false, "log", |w| {
        let (h, g) = (w.rng.between(0.1, 0.4), w.rng.between(0.45, 0.7));
        let size = w.size;
        follow(w, size, |x| ((x - h).max(0.0) / (g - h)).min(1.0));
        w.noise(size, 0.0);
    }),
    ("freed_at_end", false, "other", |w| {
        let (end, size) = (w.rng.between(0.85, 0.98), w.size);
        w.arrivals(size, |x| f64::from(u8::from(x < end)), |_, at| end - at);
    }),
    ("startup_decay", false, "other", |w| {
        let t = w.rng.between(0.05, 0.3);
        for _ in 0..300 {
            let (d, c) = (w.rng.exponential(t), w.size / 300.0);
            w.add(0.0, d, c);
        }
        let s = w.size;
        w.noise(s, 0.0);
    }),
    ("square_jobs", false, "other", |w| {
        let jobs = w.rng.between(4.0, 14.0);
        for k in 0..jobs as usize {
            let (at, c) = ((k as f64 + 0.4 * w.rng.unit()) / jobs, w.size * w.rng.between(0.5, 1.5));
            w.add(at, at + 0.5 / jobs, c);
        }
        let s = w.size;
        w.noise(s, 0.0);
    }),
    ("lazy_steps", false, "other", |w| {
        let (steps, end) = (w.rng.pick(&[2, 3, 4]), w.rng.between(0.4, 0.75));
        for _ in 0..steps {
            let (at, c) = (end * w.rng.unit(), w.size * w.rng.between(0.1, 0.5));
            w.add(at, FOREVER, c);
        }
        let s = w.size;
        w.noise(s, 0.0);
    }),
    ("sessions_heavy", false, "log", |w| {
        // Session lifetimes have a heavy tail, so the number of sessions becomes constant only slowly.
        let (tail, least) = (w.rng.between(1.3, 2.2), w.rng.scale(0.002, 0.02));
        let size = w.size;
        w.arrivals(
            size / (least * 3.0),
            |_| 1.0,
            |r, _| least * ((1.0 - r.unit()).powf(-1.0 / tail)).min(0.35 / least),
        );
    }),
    ("load_ramp", false, "log", |w| {
        let (h, life) = (w.rng.between(0.2, 0.6), w.rng.scale(0.005, 0.04));
        let pop = w.size;
        w.arrivals(pop / life, |x| (x / h).min(1.0), |r, _| r.exponential(life));
    }),
    ("growth_stops", false, "log", |w| {
        let end = w.rng.between(0.4, 0.8);
        let size = w.size;
        w.arrivals(size / end, |x| f64::from(u8::from(x < end)), |_, _| FOREVER);
        w.noise(size, 0.0);
    }),
    ("ttl_cache", false, "log", |w| {
        let (ttl, t) = (w.rng.between(0.08, 0.45), w.rng.between(0.02, 0.1));
        let size = w.size;
        w.arrivals(size / ttl, |x| 1.0 - (-x / t).exp(), |_, _| ttl);
        w.noise(size * 0.5, 0.0);
    }),
    ("vec_doubling", false, "log", |w| {
        let (mut at, mut cap) = (w.rng.between(0.002, 0.02), 16u64);
        let stop = w.rng.between(0.2, 0.7);
        let unit = w.unit_bytes() as u64;
        loop {
            let next = at * 2.0;
            let last = next > stop;
            w.add_sized(at, if last { FOREVER } else { next }, 1, cap * unit);
            if last {
                break;
            }
            (at, cap) = (next, cap * 2);
        }
    }),
];

/// Mechanisms that the published benchmark does not have.
pub(crate) const UNSEEN: &[Family] = &[
    ("leak_timer", true, "linear", |w| {
        // A timer leaks a fixed number of allocations at fixed intervals, at least twelve times in the
        // record. The time of the first leak is random.
        let (times, phase) = (w.rng.scale(12.0, 60.0), w.rng.unit());
        let each = (w.size / times).ceil();
        for k in 0..times as usize {
            w.leaked += w.add((k as f64 + phase) / times, FOREVER, each);
        }
    }),
    ("leak_office_hours", true, "linear", |w| {
        let (days, phase) = (w.rng.between(4.0, 9.0), w.rng.unit());
        let size = w.size;
        w.leak(size * 2.5, |x| f64::from(u8::from((days * x + phase).fract() < 0.4)));
        beside_noise(w, size);
    }),
    ("leak_two_rates", true, "linear", |w| {
        let (at, faster) = (w.rng.between(0.3, 0.6), w.rng.between(0.65, 1.6));
        let size = w.size;
        w.leak(size, |x| if x < at { 1.0 } else { faster });
        beside_noise(w, size);
    }),
    ("leak_after_fill", true, "linear", |w| {
        let (h, a) = (w.rng.between(0.05, 0.2), w.rng.between(0.2, 1.0));
        let (size, pool) = (w.size, w.size * a);
        follow(w, pool, |x| (x / h).min(1.0));
        w.leak(size, |_| 1.0);
        beside_noise(w, size);
    }),
    ("leak_under_load", true, "linear", |w| {
        // Requests come in waves. A share of the requests is never released; all other requests are released
        // soon.
        let (waves, phase, life, share) =
            (w.rng.between(3.0, 8.0), w.rng.unit(), 0.015, w.rng.scale(0.03, 0.2));
        let size = w.size;
        let kept = w.arrivals(
            size / share,
            |x| 1.0 + 0.6 * (TAU * (waves * x + phase)).sin(),
            |r, _| if r.unit() < share { FOREVER } else { r.exponential(life) },
        );
        w.leaked += kept;
    }),
    ("leak_growing_buffer", true, "linear", |w| {
        // The program reallocates one buffer again and again, each time a little larger, so the live count
        // never changes.
        let times = w.rng.scale(20.0, 300.0) as usize;
        let (start, phase) = (w.rng.between(0.0, 1.0), w.rng.unit());
        let step = (w.size / times as f64 * w.unit_bytes()).ceil() as u64;
        let base = (start * w.size * w.unit_bytes()) as u64;
        for k in 0..times {
            let at = if k == 0 { 0.0 } else { (k as f64 - phase) / times as f64 };
            let until = if k + 1 == times { FOREVER } else { (k as f64 + 1.0 - phase) / times as f64 };
            w.add_sized(at, until, 1, base + step * (k as u64 + 1));
        }
        w.leaked = (step * (times as u64 - 1)) as f64;
    }),
    ("leak_fatter_items", true, "linear", |w| {
        // The site has a fixed number of tables, and each table gets more and more entries.
        let tables = w.rng.between(5.0, 30.0) as usize;
        let steps = w.rng.between(8.0, 30.0) as usize;
        let unit = w.unit_bytes();
        for _ in 0..tables {
            let phase = w.rng.unit();
            for k in 0..=steps {
                let at = if k == 0 { 0.0 } else { (k as f64 - phase) / steps as f64 };
                let until = if k == steps { FOREVER } else { (k as f64 + 1.0 - phase) / steps as f64 };
                w.add_sized(at, until, 1, (unit * (k as f64 + 2.0)) as u64);
            }
        }
        w.leaked = unit * tables as f64 * steps as f64;
    }),
    ("leak_few_of_many", true, "linear", |w| {
        let (life, size) = (w.rng.scale(0.01, 0.04), w.size);
        let share = w.rng.scale(0.01, 0.05);
        let cap = (size / share).min(size * 60.0);
        let kept = w.arrivals(
            cap,
            |_| 1.0,
            |r, _| if r.unit() < size / cap { FOREVER } else { r.exponential(life) },
        );
        w.leaked += kept;
    }),
    ("leak_quadratic_pairs", true, "exp", |w| {
        let size = w.size;
        w.leak(size * 2.0, |x| 2.0 * x.max(0.02) / 2.0);
        beside_noise(w, size);
    }),
    ("cache_two_tiers", false, "log", |w| {
        let (t, at, u) = (w.rng.between(0.02, 0.08), w.rng.between(0.2, 0.4), w.rng.between(0.03, 0.1));
        let size = w.size;
        follow(w, size * 0.5, |x| 1.0 - (-x / t).exp());
        follow(w, size * 0.5, |x| 1.0 - (-(x - at).max(0.0) / u).exp());
        w.noise(size, 0.0);
    }),
    ("cache_sigmoid", false, "log", |w| {
        let (mid, width) = (w.rng.between(0.15, 0.45), w.rng.between(0.02, 0.08));
        let size = w.size;
        follow(w, size, |x| 1.0 / (1.0 + (-(x - mid) / width).exp()));
        w.noise(size, 0.0);
    }),
    ("load_levels", false, "other", |w| {
        let count = w.rng.between(5.0, 12.0) as usize;
        let path: Vec<(f64, f64)> =
            (0..count).map(|k| (k as f64 / count as f64, w.size * w.rng.between(0.2, 1.5))).collect();
        levels(w, &path);
        let s = w.size;
        w.noise(s, 0.0);
    }),
    ("high_water_pool", false, "log", |w| {
        // A pool never releases memory, so its size is the greatest demand so far. The demand varies at
        // random, so the demand reaches a new maximum ever more rarely.
        let (mut high, demands) = (0.0, w.rng.scale(30.0, 600.0) as usize);
        for k in 0..demands {
            let demand = w.size * (1.0 + 0.25 * w.rng.normal()).max(0.0);
            if demand > high {
                w.add(k as f64 / demands as f64, FOREVER, demand - high);
                high = demand;
            }
        }
    }),
    ("config_reload", false, "other", |w| {
        let reloads = w.rng.between(3.0, 9.0) as usize;
        for k in 0..reloads {
            let at = k as f64 / reloads as f64;
            let size = w.size * w.rng.between(0.9, 1.1);
            w.add(at, at + 1.08 / reloads as f64, size);
        }
        let s = w.size;
        w.noise(s, 0.0);
    }),
    ("buffer_high_water", false, "log", |w| {
        let (mut high, mut born) = (0u64, 0.0);
        let demands = w.rng.scale(40.0, 400.0) as usize;
        for k in 0..demands {
            let at = k as f64 / demands as f64;
            let need = (w.size * w.unit_bytes() * (0.3 * w.rng.normal()).exp()) as u64;
            if need > high {
                w.add_sized(born, at, 1, high);
                (high, born) = (need, at);
            }
        }
        w.add_sized(born, FOREVER, 1, high);
    }),
    ("batch_then_drain", false, "other", |w| {
        let bursts = cycles(w, 2.5, 8.0, 0.5);
        for at in bursts {
            for k in 0..40 {
                let (size, span) = (w.size / 40.0, 0.1);
                w.add(at - span, at - span + span * (1.0 + f64::from(k) / 40.0), size);
            }
        }
        let s = w.size;
        w.noise(s, 0.0);
    }),
    ("generations", false, "other", |w| {
        // The program has a garbage collector: a minor collection frees most of the young allocations, and a
        // major collection frees all allocations.
        let (minor, major) = (cycles(w, 20.0, 40.0, 0.2), cycles(w, 3.5, 7.0, 0.2));
        let size = w.size;
        w.arrivals(
            size * 12.0,
            |_| 1.0,
            move |r, at| {
                let ends = if r.unit() < 0.15 { &major } else { &minor };
                ends.iter().copied().find(|&end| end > at).unwrap_or(FOREVER) - at
            },
        );
    }),
    ("ring_log", false, "log", |w| {
        let (fill, size) = (w.rng.between(0.15, 0.6), w.size);
        w.arrivals(size / fill, |_| 1.0, |_, _| fill);
    }),
    ("plugins_on_use", false, "log", |w| {
        // About a dozen features are each loaded at their first use (the coupon collector's problem).
        let (features, t) = (w.rng.between(6.0, 14.0) as usize, w.rng.between(0.05, 0.2));
        for _ in 0..features {
            let (at, size) = (w.rng.exponential(t), w.size / features as f64 * w.rng.scale(0.5, 2.0));
            w.add(at, FOREVER, size);
        }
        let s = w.size;
        w.noise(s * 0.3, 0.0);
    }),
    ("random_walk_bounded", false, "constant", |w| {
        let (size, l) = (w.size, w.rng.between(0.05, 0.12));
        w.churn(size * 0.15, l)
    }),
    ("shrinking", false, "other", |w| {
        for k in 0..60 {
            let c = w.size / 60.0;
            w.add(0.0, f64::from(k) / 55.0, c);
        }
        let s = w.size;
        w.noise(s, 0.0);
    }),
    ("late_burst_stays", false, "other", |w| {
        let (at, size) = (w.rng.between(0.5, 0.75), w.size);
        follow(w, size, |x| ((x - at).max(0.0) / 0.08).min(1.0));
        w.noise(size, 0.0);
    }),
];
