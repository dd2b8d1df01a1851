//! Compares how well two groups of models fit a curve: models in which growth stops, and models in which
//! growth continues.
//!
//! Every model is a constant plus one or two fixed shapes, fitted by generalised least squares under AR(1)
//! noise ([`super::ar1`]). Each model gets a BIC, which measures how badly the model fits, and is greater for
//! a model with more parameters. The main result is half the difference of two numbers: the least BIC of all
//! models in which growth stops, minus the least BIC of all models in which growth continues. This result is
//! edleak's main test to tell a leak from a cache that fills. A rising curve alone is weak evidence of a
//! leak. But if no saturating shape fits a rising curve, this is strong evidence of a leak.
//!
//! No model has more than one step, because a model with several steps would also fit a leak that grows in
//! bursts.

use std::sync::OnceLock;

use super::ar1::{Inner, PerRho, RHO};
use super::buckets::MOST;
use super::curve::{Curve, mean};
use super::shapes::Shape;

/// Index of ρ = 0 in [`RHO`]. To estimate the growth, the module uses ρ = 0, that is, plain least squares.
/// On a sawtooth curve, plain least squares averages whole cycles, while a prewhitened fit would follow
/// the last tooth. On a straight line under AR(1) noise, plain least squares is only a little less exact
/// than a prewhitened fit.
const ESTIMATE: usize = 0;

/// Least residual of a model, as a share of the curve's variance. A smaller residual is raised to this value,
/// because no model can be expected to fit exactly.
const LEAST_RESIDUAL: f64 = 1e-6;

/// A result (half the difference of two BICs) is limited to the range from −10 to 10. At 10, the models of
/// one group already fit far better than the models of the other group.
const MOST_BIC: f64 = 10.0;

/// Number of parameters that BIC counts for a model of a constant and a step: the height of the step, its
/// position, and the constant. `STEP_AND_LINE` is for a model that also has a straight line, whose slope
/// is the fourth parameter.
const STEP: f64 = 3.0;
const STEP_AND_LINE: f64 = 4.0;
/// Number of parameters that BIC counts for a model of a line plus a base (memory that the site loads at
/// the start). The model has only four parameters, but BIC counts six. The curve of this model may bend at
/// any position. So if BIC counted only four parameters, this model of a leak would also fit the curves of
/// many caches.
const LOAD_AND_LINE: f64 = 6.0;

/// Saturating shapes that a model may have as a second term, beside a leak or a ramp.
const FILLS: [Shape; 3] = [Shape::Fill(0.025), Shape::Fill(0.05), Shape::Fill(0.1)];

/// A base is memory that a site loads at its start. The slope of the base must be at least this number of
/// times the slope of the leak. If the base rises less steeply, the curve bends so little at the end of the
/// base that it looks like a curve that slows down the whole time, such as √t or ln t.
const LOAD_PACE: f64 = 5.0;

/// The result of the comparison on one curve.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Comparison {
    /// Half the BIC of the best model in which growth stops, minus half the BIC of the best leaking model.
    /// The number is limited to the range from −10 to 10, and is positive if the leaking model fits
    /// better.
    pub(crate) bic: f64,
    /// Half the BIC of the best leaking model that does not accelerate, minus half the BIC of the best
    /// leaking model that accelerates. The result is positive if the accelerating model fits better.
    pub(crate) bend: f64,
    /// Growth from the start to the end of the record: the mean of the growth of all leaking models, weighted
    /// by the likelihoods of the models. Only the growing term of each model counts as growth; the fill, the
    /// step and the base of a model do not.
    pub(crate) growth: f64,
    /// Position in the record, 0…1, at which the growth begins according to the best leaking model.
    pub(crate) begins: f64,
}

/// All models for curves of one length. The models depend only on the number of buckets of a curve, so the
/// program computes them once for each number of buckets.
pub(crate) struct Models {
    len: usize,
    columns: Vec<Column>,
    designs: Vec<Design>,
    /// Index of the straight line in `columns`. `line_own` is the product of the straight line with itself,
    /// without the part that the constant explains.
    line: usize,
    line_own: PerRho,
    /// The product of the constant with itself: ⟨1, 1⟩.
    one: PerRho,
    steps: Vec<Step>,
}

/// The values of a shape at every bucket.
struct Column {
    shape: Shape,
    values: Vec<f64>,
    with_one: PerRho,
}

/// A model that consists of a constant and one or two shapes. `growing` is the index of its growing shape
/// in `columns`, and `own` is the product of this shape with itself. `own` does not include the part that
/// the constant explains.
struct Design {
    growing: usize,
    own: PerRho,
    beside: Option<SecondColumn>,
    parameters: f64,
    leaks: bool,
    /// Whether the second column is a base, which is memory that the site loads at the start (see
    /// [`LOAD_PACE`]).
    beside_load: bool,
}

/// The second column of a design: its index, its product with itself, and its product with the growing
/// column.
struct SecondColumn {
    column: usize,
    own: PerRho,
    cross: PerRho,
}

/// The products of one step function: with the constant, with itself, and with the line. `own` and
/// `with_line` do not include the part that the constant explains.
struct Step {
    with_one: PerRho,
    own: PerRho,
    with_line: PerRho,
}

/// The models for curves of `len` buckets; `len` is 2 to 128.
pub(crate) fn models(len: usize) -> &'static Models {
    static MODELS: [OnceLock<Models>; MOST + 1] = [const { OnceLock::new() }; MOST + 1];
    MODELS[len].get_or_init(|| Models::new(len))
}

/// Ramps that end within the first 35 % of the record and span two buckets or more. A ramp within one bucket
/// would be a step.
fn loads(len: usize) -> impl Iterator<Item = Shape> {
    let ends = (1..=14).map(|fortieths| f64::from(fortieths) / 40.0);
    ends.filter(move |end| end * len as f64 >= 2.0).map(Shape::Ramp)
}

impl Models {
    fn new(len: usize) -> Self {
        let ones = vec![1.0; len];
        let one = Inner::of(&ones, &ones).all();
        let mut models = Self {
            len,
            columns: Vec::new(),
            designs: Vec::new(),
            line: 0,
            line_own: [0.0; RHO.len()],
            one,
            steps: Vec::new(),
        };
        models.line = models.column(Shape::LINE);
        models.line_own = models.product(models.line, models.line);
        models.add_saturating();
        models.add_leaking();
        let own = Inner::steps_with_themselves(len);
        let with_one = Inner::with_steps(&ones);
        let with_line = Inner::with_steps(&models.columns[models.line].values);
        models.steps = (0..len - 1)
            .map(|at| {
                let one = with_one[at].all();
                let line =
                    models.free_of_constant(with_line[at], &one, &models.columns[models.line].with_one);
                Step { with_one: one, own: models.free_of_constant(own[at], &one, &one), with_line: line }
            })
            .collect();
        models
    }

    fn add_saturating(&mut self) {
        let ramps = loads(self.len).chain([0.4, 0.5, 0.6, 0.7, 0.8].map(Shape::Ramp));
        let fills = [0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3].map(Shape::Fill);
        let logs = [8.0, 20.0, 60.0, 200.0, 1000.0].map(Shape::Log);
        let powers = [0.3, 0.4, 0.5, 0.6].map(Shape::Power);
        for shape in ramps.chain(fills).chain(logs).chain(powers) {
            self.add(shape, None, 3.0, false);
        }
        for (from, to) in (1..8).flat_map(|from| (from + 1..=8).map(move |to| (from, to))) {
            let plateau = Shape::Plateau(f64::from(from) / 10.0, f64::from(to) / 10.0);
            self.add(plateau, None, 4.0, false);
        }
        for fill in FILLS {
            self.add(Shape::Ramp(0.4), Some(fill), 5.0, false);
            self.add(Shape::Ramp(0.6), Some(fill), 5.0, false);
        }
    }

    fn add_leaking(&mut self) {
        self.add(Shape::LINE, None, 2.0, true);
        self.add(Shape::Power(2.0), None, 2.5, true);
        self.add(Shape::Power(3.0), None, 3.0, true);
        for start in [0.15, 0.25, 0.35, 0.45, 0.55, 0.65] {
            self.add(Shape::Hinge(start), None, 3.0, true);
        }
        for rate in [2.0, 4.0, 6.0] {
            self.add(Shape::Exp(rate), None, 3.0, true);
        }
        for fill in FILLS {
            self.add(Shape::LINE, Some(fill), 4.0, true);
        }
        for load in loads(self.len) {
            self.add(Shape::LINE, Some(load), LOAD_AND_LINE, true);
        }
    }

    fn add(&mut self, growing: Shape, beside: Option<Shape>, parameters: f64, leaks: bool) {
        let growing = self.column(growing);
        let beside_load = leaks && matches!(beside, Some(Shape::Ramp(_)));
        let beside = beside.map(|shape| self.column(shape));
        let own = self.product(growing, growing);
        let beside = beside.map(|column| SecondColumn {
            column,
            own: self.product(column, column),
            cross: self.product(growing, column),
        });
        self.designs.push(Design { growing, own, beside, parameters, leaks, beside_load });
    }

    fn column(&mut self, shape: Shape) -> usize {
        if let Some(known) = self.columns.iter().position(|column| column.shape == shape) {
            return known;
        }
        let len = self.len;
        let mut values: Vec<f64> = (0..len).map(|k| shape.value((k as f64 + 0.5) / len as f64)).collect();
        // The function subtracts the mean of the values to reduce rounding errors. Subtracting the mean does
        // not change a fit, because every model contains a constant.
        let mid = mean(&values);
        values.iter_mut().for_each(|v| *v -= mid);
        let with_one = Inner::of(&values, &vec![1.0; len]).all();
        self.columns.push(Column { shape, values, with_one });
        self.columns.len() - 1
    }

    fn product(&self, a: usize, b: usize) -> PerRho {
        let (a, b) = (&self.columns[a], &self.columns[b]);
        self.free_of_constant(Inner::of(&a.values, &b.values), &a.with_one, &b.with_one)
    }

    /// Returns the part of a product that the constant does not explain: ⟨a, b⟩ − ⟨a, 1⟩⟨b, 1⟩/⟨1, 1⟩.
    fn free_of_constant(&self, ab: Inner, a: &PerRho, b: &PerRho) -> PerRho {
        let ab = ab.all();
        std::array::from_fn(|r| ab[r] - a[r] * b[r] / self.one[r])
    }

    /// Fits every model to the curve of the bucket means, and compares the fits. The curve must
    /// have as many buckets as the models.
    pub(crate) fn compare(&self, curve: &Curve) -> Comparison {
        let mid = mean(&curve.mean);
        let spread = mean(&curve.mean.iter().map(|m| (m - mid).powi(2)).collect::<Vec<_>>()).sqrt();
        if !(spread > 0.0 && spread.is_finite()) {
            return Comparison { bic: -MOST_BIC, ..Comparison::default() };
        }
        let y: Vec<f64> = curve.mean.iter().map(|m| (m - mid) / spread).collect();
        let y_one = Inner::of(&y, &vec![1.0; self.len]).all();
        let yy = self.free_of_constant(Inner::of(&y, &y), &y_one, &y_one);
        let products: Vec<PerRho> = self
            .columns
            .iter()
            .map(|c| self.free_of_constant(Inner::of(&c.values, &y), &c.with_one, &y_one))
            .collect();

        let mut stops = self.cost(&yy, 1.0);
        let mut leaks = Vec::with_capacity(16);
        for design in &self.designs {
            let fit = design.fit(&products, &yy);
            let cost = self.cost(&fit.residual, design.parameters);
            if design.leaks {
                if design.beside_load && !fit.is_beside_a_load() {
                    continue;
                }
                let shape = self.columns[design.growing].shape;
                leaks.push(Leaking { cost, growth: fit.coefficient * shape.range(), shape });
            } else {
                stops = stops.min(cost);
            }
        }
        let mut best_step = Leaking { cost: f64::INFINITY, growth: 0.0, shape: Shape::LINE };
        for (step, with_y) in self.steps.iter().zip(Inner::with_steps(&y)) {
            let with_y = self.free_of_constant(with_y, &step.with_one, &y_one);
            let alone = std::array::from_fn(|r| yy[r] - with_y[r] * with_y[r] / step.own[r]);
            stops = stops.min(self.cost(&alone, STEP));
            let beside = Some((&step.own, &step.with_line, &with_y));
            let fit = least_squares((&self.line_own, &products[self.line]), beside, &yy);
            let cost = self.cost(&fit.residual, STEP_AND_LINE);
            if cost < best_step.cost {
                best_step = Leaking { cost, growth: fit.coefficient, shape: Shape::LINE };
            }
        }
        leaks.push(best_step);
        Leaking::compare(&leaks, stops, spread)
    }

    /// The BIC of a model at the likeliest ρ; `residual` has the sum of squares of the residuals
    /// for each ρ.
    fn cost(&self, residual: &PerRho, parameters: f64) -> f64 {
        let n = self.len as f64;
        let mut least = f64::INFINITY;
        for (residual, rho) in residual.iter().zip(RHO) {
            let share = (residual / n).max(LEAST_RESIDUAL);
            least = least.min(n * share.ln() - (1.0 - rho * rho).ln());
        }
        least + parameters * n.ln()
    }
}

/// A fitted model that leaks.
#[derive(Clone, Copy)]
struct Leaking {
    cost: f64,
    growth: f64,
    shape: Shape,
}

impl Leaking {
    /// Compares the leaking models with the best model in which growth stops; `stops` is the BIC of the best
    /// such model. The function multiplies the growth by `spread`, because the values of the curve were
    /// divided by `spread`.
    fn compare(all: &[Self], stops: f64, spread: f64) -> Comparison {
        let least = |accelerates: Option<bool>| {
            let some = all.iter().filter(|l| accelerates.is_none_or(|a| l.shape.accelerates() == a));
            some.map(|l| l.cost).fold(f64::INFINITY, f64::min)
        };
        let best = least(None);
        let half = |by: f64| (by / 2.0).clamp(-MOST_BIC, MOST_BIC);
        let weight = |l: &Self| ((best - l.cost) / 2.0).exp();
        let growth =
            all.iter().map(|l| weight(l) * l.growth).sum::<f64>() / all.iter().map(weight).sum::<f64>();
        Comparison {
            bic: half(stops - best),
            bend: half(least(Some(false)) - least(Some(true))),
            growth: growth * spread,
            begins: all.iter().find(|l| l.cost == best).map_or(0.0, |l| l.shape.begins()),
        }
    }
}

impl Design {
    fn fit(&self, products: &[PerRho], yy: &PerRho) -> Fit {
        let beside = self.beside.as_ref().map(|b| (&b.own, &b.cross, &products[b.column]));
        least_squares((&self.own, &products[self.growing]), beside, yy)
    }
}

/// The residual of a model for each ρ, and the coefficients of its one or two columns.
struct Fit {
    residual: PerRho,
    coefficient: f64,
    beside: f64,
}

impl Fit {
    fn is_beside_a_load(&self) -> bool {
        self.coefficient > 0.0 && self.beside > LOAD_PACE * self.coefficient
    }
}

/// Fits one or two shapes (columns) to a curve by least squares, from the products of these columns and the
/// curve. `growing` holds the products of the growing column with itself and with the curve. `beside` holds
/// the products of the second column with itself, with the growing column and with the curve. `yy` is the
/// product of the curve with itself.
fn least_squares(
    growing: (&PerRho, &PerRho),
    beside: Option<(&PerRho, &PerRho, &PerRho)>,
    yy: &PerRho,
) -> Fit {
    let parts = |r: usize| {
        let (aa, ay) = (growing.0[r], growing.1[r]);
        let Some((bb, ab, by)) = beside.map(|(bb, ab, by)| (bb[r], ab[r], by[r])) else {
            return (aa, ay, yy[r]);
        };
        (aa - ab * ab / bb, ay - ab * by / bb, yy[r] - by * by / bb)
    };
    let residual = std::array::from_fn(|r| {
        let (aa, ay, yy) = parts(r);
        yy - ay * ay / aa
    });
    let (aa, ay, _) = parts(ESTIMATE);
    let coefficient = ay / aa;
    let beside =
        beside.map_or(0.0, |(bb, ab, by)| (by[ESTIMATE] - coefficient * ab[ESTIMATE]) / bb[ESTIMATE]);
    Fit { residual, coefficient, beside }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(f: impl Fn(f64) -> f64) -> Comparison {
        // Every test curve gets the same small scatter without a pattern. Without scatter, all residuals
        // would be below [`LEAST_RESIDUAL`]. The comparison would then set all residuals to
        // `LEAST_RESIDUAL`, and only the number of parameters would decide.
        let scatter = |k: u32| f64::from(k.wrapping_mul(2_654_435_761) >> 16) / 65536.0 - 0.5;
        let curve = Curve::of_means((0..90).map(|k| f((f64::from(k) + 0.5) / 90.0) + scatter(k)).collect());
        models(90).compare(&curve)
    }

    #[test]
    fn saturating_curve_is_explained_by_a_saturating_model() {
        assert!(compare(|x| 100.0 * (1.0 - (-x / 0.2).exp())).bic < -5.0);
        assert!(compare(|x| 20.0 * (60.0 * x).ln_1p()).bic < -5.0);
        assert!(compare(|x| 100.0 * x.sqrt()).bic < -5.0);
        assert!(compare(|x| 100.0 * x.min(0.7)).bic < -5.0);
        assert!(compare(|x| 100.0 * (x - 0.5).clamp(0.0, 0.2)).bic < -5.0);
        // A step plus a line without slope fits as well as a step alone. The comparison prefers the
        // step alone only because this model has fewer parameters.
        assert!(compare(|x| 100.0 * f64::from(u8::from(x > 0.6))).bic < -1.5);
        assert!(compare(|_| 0.0).bic < 0.0);
    }

    #[test]
    fn growing_model_wins_and_its_amount_excludes_fill_step_and_base() {
        type Growing = (&'static str, fn(f64) -> f64, f64);
        let growing: [Growing; 6] = [
            ("line", |x| 7e3 + 100.0 * x, 100.0),
            ("beside a fill", |x| 100.0 * x + 80.0 * (1.0 - (-x / 0.05).exp()), 100.0),
            ("beside a base that loads", |x| 100.0 * x + 900.0 * x.min(0.21), 100.0),
            ("beside a step", |x| 100.0 * x + 90.0 * f64::from(u8::from(x > 0.43)), 100.0),
            ("late", |x| 150.0 * (x - 0.45).max(0.0), 82.5),
            ("parabola", |x| 100.0 * x * x, 100.0),
        ];
        for (name, curve, amount) in growing {
            let comparison = compare(curve);
            assert!(comparison.bic > 2.0, "{name}: {comparison:?}");
            assert!((comparison.growth - amount).abs() < 0.05 * amount, "{name}: {comparison:?}");
        }
    }

    #[test]
    fn only_accelerating_curves_bend() {
        assert!(compare(|x| 100.0 * (4.0 * (x - 1.0)).exp()).bend > 2.0);
        assert!(compare(|x| 100.0 * x).bend < 0.0);
        assert!(compare(|x| 150.0 * (x - 0.45).max(0.0)).begins > 0.4);
    }

    #[test]
    fn flat_curve_has_no_comparison() {
        let flat = models(20).compare(&Curve::of_means(vec![5.0; 20]));
        assert_eq!((flat.bic, flat.growth), (-MOST_BIC, 0.0));
    }
}
