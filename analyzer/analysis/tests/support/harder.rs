//! Mechanisms whose curves hardly show whether the site leaks. In these mechanisms, memory grows more slowly,
//! begins to grow later, grows in rarer steps and has more noise than in the mechanisms of the benchmark.

use super::families::{Family, beside_noise, cycles, follow, levels, sawtooth, steady};
use super::world::{FOREVER, World};
use std::f64::consts::TAU;

/// Adds memory that the site allocates at the start of the record and keeps. This memory grows in a straight
/// line over the first `share` of the record; at the end it is `times` times as large as the leak.
fn slow_base(w: &mut World, share: f64, times: f64) {
    let base = w.size * times;
    follow(w, base, |x| (x / share).min(1.0));
}

/// Adds a pool that grows in chunks of allocations. The pool always holds at least `demand` times `size`
/// allocations; `demand` grows from 0 to 1.
fn in_chunks(w: &mut World, size: f64, chunks: usize, demand: impl Fn(f64) -> f64) {
    let mut held = 0;
    for k in 0..2000 {
        let at = (f64::from(k) + w.rng.unit()) / 2000.0;
        while (held as f64) < demand(at) * chunks as f64 {
            w.leaked += w.add(at, FOREVER, size / chunks as f64);
            held += 1;
        }
    }
}

/// Mechanisms that are harder to judge than the mechanisms of the benchmark.
pub(crate) const HARDER: &[Family] = &[
    ("leak_slow_base", true, "linear", |w| {
        let (share, times) = (w.rng.between(0.05, 0.3), w.rng.scale(0.5, 20.0));
        slow_base(w, share, times);
        steady(w, 1.0);
        let s = w.size;
        beside_noise(w, s);
    }),
    ("leak_late", true, "other", |w| {
        let h = w.rng.between(0.6, 0.85);
        let size = w.size;
        w.leak(size / (1.0 - h), |x| f64::from(u8::from(x > h)));
        beside_noise(w, size * (1.0 - h));
    }),
    ("leak_by_day", true, "linear", |w| {
        let (days, phase, night) = (w.rng.between(2.5, 9.0), w.rng.unit(), w.rng.between(0.0, 0.5));
        let size = w.size;
        w.leak(size * 2.0 / (1.0 + night), |x| {
            let sun = 0.5 + 0.5 * (TAU * (days * x + phase)).sin();
            night + (1.0 - night) * sun
        });
        beside_noise(w, size);
    }),
    ("leak_with_spikes", true, "linear", |w| {
        steady(w, 1.0);
        let spikes = w.rng.between(2.0, 15.0) as usize;
        for _ in 0..spikes {
            let (at, long, high) = (w.rng.unit(), w.rng.between(0.002, 0.03), w.rng.scale(0.5, 8.0));
            let c = w.size * high;
            w.add(at, at + long, c);
        }
        let s = w.size;
        beside_noise(w, s);
    }),
    ("leak_slows_somewhat", true, "linear", |w| {
        let (at, slower) = (w.rng.between(0.3, 0.7), w.rng.between(0.45, 0.7));
        let size = w.size;
        w.leak(size, |x| if x < at { 1.0 } else { slower });
        beside_noise(w, size);
    }),
    ("leak_quickens", true, "other", |w| {
        let (at, faster) = (w.rng.between(0.3, 0.7), w.rng.between(2.0, 4.0));
        let size = w.size;
        w.leak(size, |x| if x < at { 1.0 } else { faster });
        beside_noise(w, size);
    }),
    ("leak_on_and_off", true, "linear", |w| {
        // The site leaks while a feature is in use. The program uses the feature for a random time, then
        // does not use it for a random time, and so on.
        let mut spans = vec![0.0];
        while spans[spans.len() - 1] < 1.0 {
            let next = spans[spans.len() - 1] + w.rng.between(0.01, 0.09);
            spans.push(next);
        }
        let size = w.size;
        w.leak(size * 2.0, |x| f64::from(u8::from(spans.iter().filter(|&&s| s <= x).count() % 2 == 0)));
        beside_noise(w, size);
    }),
    ("leak_uneven_batches", true, "linear", |w| {
        let batches = w.rng.between(8.0, 25.0);
        for k in 0..batches as usize {
            let at = (k as f64 + w.rng.unit()) / batches;
            let each = w.size / batches * w.rng.scale(0.4, 2.5);
            w.leaked += w.add(at, FOREVER, each);
        }
        let s = w.size;
        beside_noise(w, s);
    }),
    ("leak_arena_chunks", true, "linear", |w| {
        let (chunks, size) = (w.rng.between(12.0, 40.0) as usize, w.size);
        in_chunks(w, size, chunks, |x| x);
    }),
    ("leak_rare_gc", true, "linear", |w| {
        // A garbage collector runs a few times in the record; the leak is the memory that the collector
        // cannot free.
        let (c, left) = (cycles(w, 4.0, 8.0, 0.3), w.rng.between(0.2, 0.6));
        let size = w.size;
        sawtooth(w, &c, size / left, left);
    }),
    ("leak_heavy_sessions", true, "linear", |w| {
        // Session lifetimes have a heavy tail, and the program never frees some sessions.
        let (tail, least, share) =
            (w.rng.between(1.4, 2.2), w.rng.scale(0.002, 0.01), w.rng.scale(0.05, 0.3));
        let size = w.size;
        let kept = w.arrivals(
            size / share,
            |_| 1.0,
            |r, _| {
                if r.unit() < share {
                    FOREVER
                } else {
                    least * ((1.0 - r.unit()).powf(-1.0 / tail)).min(0.3 / least)
                }
            },
        );
        w.leaked += kept;
    }),
    ("leak_beside_log", true, "linear", |w| {
        let (k, a) = (w.rng.scale(50.0, 1000.0), w.rng.between(0.2, 0.8));
        let (size, keys) = (w.size, w.size * a);
        follow(w, keys, |x| (k * x).ln_1p() / k.ln_1p());
        steady(w, 1.0);
        beside_noise(w, size);
    }),
    ("leak_two_sites", true, "linear", |w| {
        // One caller leaks in two ways: a few large allocations, and many small allocations.
        let size = w.size;
        steady(w, 0.7);
        let (times, unit) = (w.rng.between(10.0, 40.0), w.unit_bytes());
        for _ in 0..times as usize {
            let at = w.rng.unit();
            let bytes = (0.3 * size * unit / times) as u64;
            w.add_sized(at, FOREVER, 1, bytes);
            w.leaked += bytes as f64;
        }
        beside_noise(w, size);
    }),
    ("leak_heavy_sizes", true, "linear", |w| {
        let count = w.size.min(800.0);
        for _ in 0..count as usize {
            let (at, unit) = (w.rng.unit(), w.unit_bytes());
            let bytes = (unit * (1.2 * w.rng.normal()).exp()).max(1.0) as u64;
            w.add_sized(at, FOREVER, 1, bytes);
            w.leaked += bytes as f64;
        }
        beside_noise(w, count);
    }),
    ("leak_flushed_once", true, "linear", |w| {
        // The site frees all its allocations once, early in the record. After these frees, the site leaks
        // again.
        let (at, size) = (w.rng.between(0.03, 0.2), w.size);
        w.arrivals(size * at, |x| f64::from(u8::from(x < at)), |_, born| at - born);
        w.leak(size, |x| f64::from(u8::from(x > at)));
        beside_noise(w, size);
    }),
    ("leak_exp_late", true, "exp", |w| {
        let k = w.rng.between(5.0, 9.0);
        let size = w.size;
        w.leak(size * k, |x| (k * (x - 1.0)).exp());
        beside_noise(w, size);
    }),
    ("late_saturation", false, "log", |w| {
        let end = w.rng.between(0.7, 0.88);
        let size = w.size;
        w.arrivals(size / end, |x| f64::from(u8::from(x < end)), |_, _| FOREVER);
        w.noise(size, 0.0);
    }),
    ("slow_cache", false, "log", |w| {
        let t = w.rng.between(0.2, 0.35);
        let size = w.size;
        w.arrivals(size / t, |x| (-x / t).exp(), |_, _| FOREVER);
        w.noise(size, 0.0);
    }),
    ("heaps_law", false, "log", |w| {
        let p = w.rng.between(0.35, 0.6);
        let size = w.size;
        w.arrivals(size * 10.0, |x| (p * x.max(1e-3).powf(p - 1.0)) / 10.0, |_, _| FOREVER);
        w.noise(size, 0.0);
    }),
    ("ring_fills_late", false, "log", |w| {
        let (fill, size) = (w.rng.between(0.5, 0.85), w.size);
        w.arrivals(size / fill, |_| 1.0, |_, _| fill);
        w.noise(size * 0.5, 0.0);
    }),
    ("gc_few_cycles", false, "other", |w| {
        let (c, size) = (cycles(w, 2.2, 5.0, 0.4), w.size);
        sawtooth(w, &c, size * 4.0, 0.0);
    }),
    ("rotation_by_size", false, "other", |w| {
        // The program writes log lines into a buffer, at an uneven pace, and frees the lines when the buffer
        // is full.
        let (mut at, mut ends) = (0.0, Vec::new());
        while at < 1.0 {
            at += w.rng.between(0.05, 0.3);
            ends.push(at);
        }
        let size = w.size;
        sawtooth(w, &ends, size * 5.0, 0.0);
        w.noise(size * 0.5, 0.0);
    }),
    ("table_doubles", false, "log", |w| {
        // The site allocates a hash table and the entries of this table. When the table is full, its size
        // doubles. The number of entries stops growing during the record.
        let t = w.rng.between(0.05, 0.25);
        let (entries, unit) = (w.size, w.unit_bytes());
        follow(w, entries, |x| 1.0 - (-x / t).exp());
        let (mut capacity, mut born) = (entries / 64.0, 0.0);
        for k in 0..1000 {
            let at = f64::from(k) / 1000.0;
            if entries * (1.0 - (-at / t).exp()) > capacity {
                w.add_sized(born, at, 1, (capacity * unit * 0.5) as u64);
                (born, capacity) = (at, capacity * 2.0);
            }
        }
        w.add_sized(born, FOREVER, 1, (capacity * unit * 0.5) as u64);
        w.noise(entries, 0.0);
    }),
    ("arena_chunks", false, "log", |w| {
        let (chunks, t, size) = (w.rng.between(8.0, 40.0) as usize, w.rng.between(0.05, 0.25), w.size);
        in_chunks(w, size, chunks, |x| 1.0 - (-x / t).exp());
    }),
    ("sessions_long_tail", false, "log", |w| {
        let (tail, least) = (w.rng.between(1.1, 1.6), w.rng.scale(0.002, 0.02));
        let size = w.size;
        w.arrivals(
            size / (least * 3.0),
            |_| 1.0,
            |r, _| least * ((1.0 - r.unit()).powf(-1.0 / tail)).min(0.5 / least),
        );
    }),
    ("waves_few", false, "other", |w| {
        let (periods, phase, life) = (w.rng.between(1.5, 3.0), w.rng.unit(), 0.02);
        let pop = w.size;
        w.arrivals(
            pop / life,
            |x| 1.0 + 0.8 * (TAU * (periods * x + phase)).sin(),
            |r, _| r.exponential(life),
        );
    }),
    ("spikes_only", false, "constant", |w| {
        for _ in 0..w.rng.between(2.0, 15.0) as usize {
            let (at, long, high) = (w.rng.unit(), w.rng.between(0.002, 0.05), w.rng.scale(0.5, 8.0));
            let c = w.size * high;
            w.add(at, at + long, c);
        }
        let s = w.size;
        w.noise(s, 0.0);
    }),
    ("steps_few_late", false, "other", |w| {
        let (steps, end) = (w.rng.pick(&[2, 3, 4, 5]), w.rng.between(0.6, 0.9));
        for _ in 0..steps {
            let (at, c) = (end * w.rng.unit(), w.size * w.rng.between(0.1, 0.5));
            w.add(at, FOREVER, c);
        }
        let s = w.size;
        w.noise(s, 0.0);
    }),
    ("two_plateaus", false, "log", |w| {
        let mut edges = [0.0; 4].map(|_: f64| w.rng.between(0.0, 0.8));
        edges.sort_by(f64::total_cmp);
        let [a, b, c, d] = edges;
        let size = w.size;
        follow(w, size * 0.5, |x| ((x - a).max(0.0) / (b - a).max(0.01)).min(1.0));
        follow(w, size * 0.5, |x| ((x - c).max(0.0) / (d - c).max(0.01)).min(1.0));
        w.noise(size, 0.0);
    }),
    ("slow_walk", false, "constant", |w| {
        let (size, life) = (w.size, w.rng.between(0.08, 0.2));
        w.churn(size * 0.2, life);
    }),
    ("weekdays", false, "other", |w| {
        let days = w.rng.between(5.0, 20.0) as usize;
        let path: Vec<(f64, f64)> = (0..2 * days)
            .map(|k| (k as f64 / (2 * days) as f64, w.size * if k % 2 == 0 { 1.0 } else { 0.3 }))
            .collect();
        levels(w, &path);
        let s = w.size;
        w.noise(s, 0.0);
    }),
    ("deferred_free", false, "other", |w| {
        // Allocations are freed in bulk long after their use, at uneven times.
        let (c, size) = (cycles(w, 5.0, 12.0, 1.0), w.size);
        sawtooth(w, &c, size * 6.0, 0.0);
        w.noise(size * 0.5, 0.0);
    }),
    ("slow_base", false, "log", |w| {
        let share = w.rng.between(0.05, 0.4);
        slow_base(w, share, 1.0);
        let s = w.size;
        w.noise(s, 0.0);
    }),
    ("load_creeps_to_balance", false, "log", |w| {
        let (t, life) = (w.rng.between(0.1, 0.25), w.rng.scale(0.005, 0.04));
        let pop = w.size;
        w.arrivals(pop / life, |x| 1.0 - (-x / t).exp(), |r, _| r.exponential(life));
    }),
    ("ttl_long", false, "log", |w| {
        let (ttl, size) = (w.rng.between(0.3, 0.7), w.size);
        w.arrivals(size / ttl, |_| 1.0, |_, _| ttl);
        w.noise(size * 0.5, 0.0);
    }),
];
