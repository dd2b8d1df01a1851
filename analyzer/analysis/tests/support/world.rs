//! A simulated site: a list of allocations, each with a time of birth, a time of death and a size.
//!
//! All data of a recording (live bytes, counts, cumulated allocations and frees, birth times of survivors)
//! are computed from the list of allocations. So a real program could produce every curve that the simulator
//! makes.

use edleak_analysis::score::Case;
use edleak_model::series::{Births, Point, SeriesBuilder};

/// The record is divided into this number of equal spans of time, called birth epochs. For each birth epoch,
/// the simulator counts the allocations that were made in it, and how many of these are still live at the
/// end.
const EPOCHS: usize = 16;

/// A generator of random numbers (splitmix64). With the same seed, the generator gives the same numbers on
/// every machine.
pub(crate) struct Rng(pub u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number that is uniform in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A number that is log-uniform in [low, high).
    pub(crate) fn scale(&mut self, low: f64, high: f64) -> f64 {
        self.between(low.ln(), high.ln()).exp()
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[(self.unit() * of.len() as f64) as usize]
    }

    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// Several allocations of `bytes` bytes each. The allocations live from `birth` to `death`, which are
/// positions in the record from 0 to 1.
struct Group {
    birth: f64,
    death: f64,
    bytes: u64,
    count: u64,
}

/// One simulated site during one record.
pub(crate) struct World {
    pub rng: Rng,
    /// Number of slices.
    pub n: usize,
    /// Level of noise: 0, 1 or 2.
    pub noise: usize,
    /// Number of allocations by which the mechanism under test grows without noise, such as the size of a
    /// leak or of a cache.
    pub size: f64,
    /// True number of bytes that were leaked within the record.
    pub leaked: f64,
    /// The typical size of one allocation in bytes. (The field `spread` is the standard deviation of the
    /// logarithm of the size.)
    bytes: f64,
    spread: f64,
    groups: Vec<Group>,
}

pub(crate) const FOREVER: f64 = f64::INFINITY;

impl World {
    pub(crate) fn new(seed: u64, n: usize, noise: usize) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0xD129_0D3B_21A7_9C55) ^ 0x5851_F42D);
        rng.next();
        let (size, bytes) =
            (rng.scale(60.0, 5000.0), rng.pick(&[16.0, 24.0, 40.0, 96.0, 256.0, 1024.0, 65536.0]));
        let spread = rng.pick(&[0.0, 0.0, 0.5, 1.0]);
        let mut world = Self { rng, n, noise, size, leaked: 0.0, bytes, spread, groups: Vec::new() };
        world.base();
        world
    }

    /// Adds allocations that were live before the record, and allocations that live for less than a slice.
    fn base(&mut self) {
        let base = if self.rng.unit() < 0.5 { 0.0 } else { self.size * self.rng.scale(0.05, 5.0) };
        self.add(0.0, FOREVER, base);
        if self.rng.unit() < 0.6 {
            let rate = self.size * self.rng.scale(0.5, 20.0);
            for slice in 0..self.n {
                let at = (slice as f64 + 0.3) / self.n as f64;
                self.add(at, at + 0.3 / self.n as f64, rate / self.n as f64);
            }
        }
    }

    /// Adds `count` allocations that live from `birth` to `death`. If `count` has a fraction, `count` is
    /// rounded up or down at random.
    pub(crate) fn add(&mut self, birth: f64, death: f64, count: f64) -> f64 {
        let whole = (count + self.rng.unit()).floor().max(0.0) as u64;
        let bytes = (self.bytes * (self.spread * self.rng.normal()).exp()).max(1.0) as u64;
        self.add_sized(birth, death, whole, bytes);
        (whole * bytes) as f64
    }

    pub(crate) fn add_sized(&mut self, birth: f64, death: f64, count: u64, bytes: u64) {
        if count > 0 && death > birth && birth < 1.0 && death > 0.0 {
            self.groups.push(Group { birth: birth.max(0.0), death, bytes, count });
        }
    }

    pub(crate) fn unit_bytes(&self) -> f64 {
        self.bytes
    }

    /// Adds allocations at random times over the record: about `total` of them if `rate` is always 1. `life`
    /// gives the lifetime of each allocation. Returns the bytes of the allocations that are never freed.
    pub(crate) fn arrivals(
        &mut self,
        total: f64,
        rate: impl Fn(f64) -> f64,
        mut life: impl FnMut(&mut Rng, f64) -> f64,
    ) -> f64 {
        let batch = (total / 4000.0).max(1.0);
        let (mut at, mut kept, mean) = (0.0, 0.0, batch / total);
        let top = (0..=200).map(|k| rate(f64::from(k) / 200.0)).fold(1e-9, f64::max);
        loop {
            at += self.rng.exponential(mean / top);
            if at >= 1.0 {
                return kept;
            }
            if self.rng.unit() * top < rate(at) {
                let death = at + life(&mut self.rng, at);
                let bytes = self.add(at, death, batch);
                if death == FOREVER {
                    kept += bytes;
                }
            }
        }
    }

    /// Adds a leak of about `total` allocations; `rate` gives the relative rate of the leak at each time of
    /// the record.
    pub(crate) fn leak(&mut self, total: f64, rate: impl Fn(f64) -> f64) {
        let kept = self.arrivals(total, rate, |_, _| FOREVER);
        self.leaked += kept;
    }

    /// Adds short-lived allocations. The number of live allocations stays the same on average and has the
    /// standard deviation `sd`. The mean lifetime of an allocation is `life`, as a fraction of the record.
    pub(crate) fn churn(&mut self, sd: f64, life: f64) {
        let batch = (sd * sd / self.size.max(1.0)).max(1.0).min(sd.max(1.0));
        let groups = (sd / batch).powi(2).clamp(1.0, 400.0);
        let (kind, mut at) = (self.rng.pick(&[0, 1, 2]), -6.0 * life);
        while at < 1.0 {
            at += self.rng.exponential(life / groups);
            let lived = match kind {
                0 => self.rng.exponential(life),
                1 => life,
                _ => life * (self.rng.normal() - 0.5).exp(),
            };
            self.add(at, at + lived, batch);
        }
    }

    /// Adds noise; its strength depends on the site's field `noise`. `moved` is the number of allocations
    /// that the mechanism adds without the noise.
    ///
    /// A leak must stay visible: its growth must be at least `visible` times the standard error of the growth
    /// that the noise alone would show. If `visible` is 0, the noise may hide the leak.
    pub(crate) fn noise(&mut self, moved: f64, visible: f64) {
        let share = match self.noise {
            0 => self.rng.between(0.003, 0.015),
            1 => self.rng.between(0.02, 0.06),
            _ => self.rng.between(0.08, 0.22),
        };
        let slices = self.rng.scale(0.7, (self.n as f64 / 25.0).max(1.0));
        let mut sd = share * moved;
        if visible > 0.0 {
            sd = sd.min(moved / visible / (12.0 * (2.0 * slices + 1.0) / self.n as f64).sqrt());
        }
        self.churn(sd, slices / self.n as f64);
    }

    /// Computes the data that edleak-record would have written for this site.
    pub(crate) fn record(self, id: String, family: &str, leaks: bool, shape: &str) -> Case {
        let n = self.n;
        let slice_of = |at: f64| ((at * n as f64).ceil().max(1.0) as usize) - 1;
        let mut change = vec![[0i64; 4]; n + 1];
        let mut births = Births {
            epoch_live_bytes: vec![0; EPOCHS],
            epoch_live_count: vec![0; EPOCHS],
            epoch_allocs: vec![0; EPOCHS],
            ..Births::default()
        };
        for g in &self.groups {
            let (count, bytes) = (g.count as i64, (g.count * g.bytes) as i64);
            let born = &mut change[slice_of(g.birth)];
            (born[0], born[1], born[2]) = (born[0] + bytes, born[1] + count, born[2] + count);
            let epoch = ((g.birth * EPOCHS as f64) as usize).min(EPOCHS - 1);
            births.epoch_allocs[epoch] += g.count;
            if g.death <= 1.0 {
                let died = &mut change[slice_of(g.death)];
                (died[0], died[1], died[3]) = (died[0] - bytes, died[1] - count, died[3] + count);
                births.last_free_slice = births.last_free_slice.max(g.death * n as f64);
                births.max_age_at_free = births.max_age_at_free.max((g.death - g.birth) * n as f64);
            } else {
                births.epoch_live_bytes[epoch] += g.count * g.bytes;
                births.epoch_live_count[epoch] += g.count;
            }
        }
        let (mut builder, mut now) = (SeriesBuilder::new(), [0i64; 4]);
        for step in &change[..n] {
            now = std::array::from_fn(|i| now[i] + step[i]);
            let [live_bytes, live_count, allocs, frees] = now.map(|v| v as u64);
            builder.push(Point { live_bytes, live_count, allocs, frees });
        }
        let plain = builder.clone().finish();
        builder.births(births);
        Case {
            id,
            family: family.to_owned(),
            leaks,
            shape: shape.to_owned(),
            period_s: 1.0,
            leak_bytes: leaks.then_some(self.leaked),
            series: [plain, builder.finish()],
        }
    }
}
