//! A memory profile as text and as JSON. The sites are sorted by live memory, by allocated memory, or by
//! allocations that were freed before the next slice.

mod json;
mod text;
mod tree;

use edleak_analysis::analysis::Analysis;
use edleak_analysis::profile::{At, Order, Profile, Span};
use edleak_text::units;

/// A profile to print, and the analysis that contains the sites of the profile.
#[derive(Clone, Copy, Debug)]
pub struct ProfileReport<'a> {
    /// The analysis of the recording. The symbols of its sites must already be resolved.
    pub analysis: &'a Analysis,
    /// The profile.
    pub profile: &'a Profile,
    /// Maximum number of sites to list. `None`: the format uses its default number of sites.
    pub top: Option<usize>,
}

/// The word in JSON for the figure by which the sites are sorted.
fn order_name(order: Order) -> &'static str {
    match order {
        Order::Live => "live",
        Order::Allocated => "allocated",
        Order::Count => "count",
        Order::Churn => "churn",
    }
}

impl ProfileReport<'_> {
    /// The instant or the range of time that the profile shows, in words: `at the peak, 3.2 s of 8 s`.
    fn when(&self) -> String {
        let (to, length) = (self.profile.to.time_s, self.analysis.header.duration_s);
        let of = |what: &str| format!("{what}, {} of {}", units::duration(to), units::duration(length));
        match (self.profile.span, &self.profile.from) {
            (Span::Range { .. }, Some(from)) => {
                format!("from {} to {}", units::duration(from.time_s), units::duration(to))
            }
            (Span::Instant(At::Peak), _) => of("at the peak"),
            (Span::Instant(At::Time(_)), _) => format!("at {}", of("").trim_start_matches(", ")),
            _ => of("at the end"),
        }
    }

    /// A line about the precision of the profile's times: the time between two slices.
    fn precision(&self) -> String {
        let precision_s =
            self.profile.from.map_or(0.0, |from| from.precision_s).max(self.profile.to.precision_s);
        match precision_s > 0.0 {
            true => {
                format!("slices are {} apart there: a shorter peak is not seen", units::duration(precision_s))
            }
            false => "the trace holds a single slice".into(),
        }
    }
}
