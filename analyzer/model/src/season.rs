//! Seasonal adjustment: removes a regular wave from a curve, because the wave hides the trend.
//!
//! If the load of a program comes in waves (day and night, or a batch job every hour), the waves change the
//! live bytes of a site far more than a leak does. The model fits a wave and a parabola at the same time, and
//! then removes only the wave, so the trend stays in the curve. The model removes a wave only if it repeats
//! so often that it cannot be a trend. If a site has a wave and no trend, its curve is flat after the wave is
//! removed, so the adjustment adds no growth.

use std::f64::consts::TAU;
use std::sync::OnceLock;

use super::buckets::MOST;
use super::curve::Curve;

/// A wave must have at least this number of quarter cycles in the record. With fewer than nine quarter
/// cycles, the wave may be a trend that changed its direction.
const LEAST_QUARTERS: usize = 9;

/// Least number of buckets in one cycle of a wave. A wave with fewer buckets in one cycle need not be
/// removed, because each eighth of the record averages over many of its cycles.
const LEAST_BUCKETS: usize = 5;

/// The model removes a wave only if the wave explains at least this share of the scatter about the parabola.
const LEAST_SHARE: f64 = 0.6;

/// The waves that the model tries on curves of one length, and the parabola that it fits with them.
struct Waves {
    parabola: Vec<Vec<f64>>,
    waves: Vec<Wave>,
    /// The `units` of all waves: first the cosines of all waves, then the sines of all waves. For each
    /// bucket, the values of [`ABREAST`] vectors are next to each other in memory, so that the code
    /// computes [`ABREAST`] sums in parallel. Each of the parallel sums has the same bits as if it were
    /// computed alone.
    units: Vec<Vec<[f64; ABREAST]>>,
}

/// Number of sums that one loop computes in parallel.
const ABREAST: usize = 8;

impl Waves {
    /// For each wave, the part of the sum of squares of `rest` that the wave explains. `rest` is a
    /// curve from which the fitted parabola has been subtracted.
    fn explained(&self, rest: &[f64]) -> Vec<f64> {
        let sums = |units: &Vec<[f64; ABREAST]>| {
            rest.iter().zip(units).fold([0.0; ABREAST], |sums: [f64; ABREAST], (value, units)| {
                std::array::from_fn(|l| sums[l] + value * units[l])
            })
        };
        let shares: Vec<f64> = self.units.iter().flat_map(sums).collect();
        let (cosines, sines) = shares.split_at(self.waves.len());
        // If the number of vectors is not a multiple of `ABREAST`, zeros fill the last row of `units`;
        // `zip` ignores the sums of these zeros.
        cosines.iter().zip(sines).map(|(cosine, sine)| cosine * cosine + sine * sine).collect()
    }
}

/// One wave: its cosine and its sine (`raw`), and an orthonormal basis (`units`) of the part of both that is
/// orthogonal to every parabola.
struct Wave {
    raw: [Vec<f64>; 2],
    units: [Vec<f64>; 2],
    /// With `first`, `second` and `cross`, a combination of the two `units` is converted into a combination
    /// of the cosine and the sine in `raw`. `first` and `second` are the lengths of the two vectors before
    /// they were scaled to length 1. `cross` is the inner product of the first unit vector and the second
    /// vector, computed before the second vector was made orthogonal to the first unit vector.
    first: f64,
    second: f64,
    cross: f64,
}

impl Wave {
    fn new(raw: [Vec<f64>; 2], parabola: &[Vec<f64>]) -> Self {
        let mut units = raw.clone();
        units.iter_mut().for_each(|unit| remove(parabola, unit));
        let first = normalize(&mut units[0]);
        let cross = dot(&units[0], &units[1]);
        let [a, b] = &mut units;
        remove(std::slice::from_ref(a), b);
        let second = normalize(b);
        Self { raw, units, first, second, cross }
    }

    /// The wave that fits `rest`, which is a curve without its parabola. A wave that ends higher or lower
    /// than it began looks partly like a trend. The result is the whole wave, with this apparent trend.
    fn fitted(&self, rest: &[f64]) -> Vec<f64> {
        let sine = dot(rest, &self.units[1]) / self.second;
        let cosine = (dot(rest, &self.units[0]) - sine * self.cross) / self.first;
        self.raw[0].iter().zip(&self.raw[1]).map(|(c, s)| cosine * c + sine * s).collect()
    }
}

/// The curve without its wave; `None`: the curve has no clear wave.
pub(crate) fn adjusted(curve: &Curve) -> Option<Curve> {
    let waves = waves(curve.len());
    let mut rest = curve.mean.clone();
    remove(&waves.parabola, &mut rest);
    let total = dot(&rest, &rest);
    let shares = waves.explained(&rest).into_iter().map(|explained| explained / total);
    let shares = shares.zip(&waves.waves).filter(|(share, _)| share.is_finite());
    let (share, wave) = shares.max_by(|a, b| a.0.total_cmp(&b.0))?;
    if share < LEAST_SHARE {
        return None;
    }
    let wave = wave.fitted(&rest);
    let without = |values: &[f64]| values.iter().zip(&wave).map(|(v, w)| v - w).collect();
    Some(Curve { mean: without(&curve.mean), min: without(&curve.min), max: without(&curve.max) })
}

fn waves(len: usize) -> &'static Waves {
    static WAVES: [OnceLock<Waves>; MOST + 1] = [const { OnceLock::new() }; MOST + 1];
    WAVES[len].get_or_init(|| {
        let sample = |f: &dyn Fn(f64) -> f64| -> Vec<f64> {
            (0..len).map(|k| f((k as f64 + 0.5) / len as f64)).collect()
        };
        let mut parabola = Vec::new();
        for power in 0..3 {
            let mut vector = sample(&|x| x.powi(power));
            remove(&parabola, &mut vector);
            normalize(&mut vector);
            parabola.push(vector);
        }
        let wave = |quarters: usize| {
            let turn = TAU * quarters as f64 / 4.0;
            Wave::new([sample(&|x| (turn * x).cos()), sample(&|x| (turn * x).sin())], &parabola)
        };
        let waves: Vec<Wave> = (LEAST_QUARTERS..=4 * len / LEAST_BUCKETS).map(wave).collect();
        let columns: Vec<&Vec<f64>> =
            (0..2).flat_map(|of| waves.iter().map(move |wave| &wave.units[of])).collect();
        let abreast = |columns: &[&Vec<f64>]| {
            let row = |k: usize| std::array::from_fn(|l| columns.get(l).map_or(0.0, |column| column[k]));
            (0..len).map(row).collect()
        };
        let units = columns.chunks(ABREAST).map(abreast).collect();
        Waves { parabola, waves, units }
    })
}

/// Subtracts the projection on an orthonormal basis from `values`.
fn remove(basis: &[Vec<f64>], values: &mut [f64]) {
    for unit in basis {
        let share = dot(values, unit);
        values.iter_mut().zip(unit).for_each(|(value, unit)| *value -= share * unit);
    }
}

/// Scales a vector to length 1 and returns the length that it had before.
fn normalize(vector: &mut [f64]) -> f64 {
    let length = dot(vector, vector).sqrt();
    vector.iter_mut().for_each(|v| *v /= length);
    length
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trend::slope;

    fn curve(f: impl Fn(f64) -> f64) -> Curve {
        Curve::of_means((0..96).map(|k| f((f64::from(k) + 0.5) / 96.0)).collect())
    }

    #[test]
    fn a_wave_on_a_line_leaves_the_line() {
        let adjusted =
            adjusted(&curve(|x| 100.0 * x + 80.0 * (TAU * 4.0 * x + 1.0).sin())).expect("it waves");
        assert!((slope(&adjusted.mean) * 96.0 - 100.0).abs() < 1.0);
        let worst = adjusted.mean.windows(2).map(|w| (w[1] - w[0] - 100.0 / 96.0).abs()).fold(0.0, f64::max);
        assert!(worst < 1.0, "{worst}");
    }

    #[test]
    fn a_wave_alone_leaves_nothing_that_grows() {
        for phase in [0.0, 1.0, 2.0, 3.0, 4.0, 5.0] {
            let adjusted = adjusted(&curve(|x| 50.0 * (TAU * 3.0 * x + phase).sin())).expect("it waves");
            assert!(slope(&adjusted.mean).abs() * 96.0 < 3.0);
        }
    }

    #[test]
    fn vectorized_sums_equal_sequential_sums() {
        for len in [12, 57, 96, 113] {
            let rest: Vec<f64> = (0..len).map(|k| ((k * k) as f64 * 0.7).sin() * 1e6).collect();
            let waves = waves(len);
            for (explained, wave) in waves.explained(&rest).iter().zip(&waves.waves) {
                let alone: f64 = wave.units.iter().map(|unit| dot(&rest, unit).powi(2)).sum();
                assert_eq!(explained.to_bits(), alone.to_bits());
            }
        }
    }

    #[test]
    fn trends_and_steps_are_not_taken_for_waves() {
        assert_eq!(adjusted(&curve(|x| x)), None);
        assert_eq!(adjusted(&curve(|x| (20.0 * x).ln_1p())), None);
        assert_eq!(adjusted(&curve(|x| f64::from(u8::from(x > 0.4)))), None);
        assert_eq!(adjusted(&curve(|_| 7.0)), None);
    }
}
