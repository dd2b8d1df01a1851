//! A memory profile of a trace: the memory of each site at one instant, or the change of this memory in a
//! range of time.
//!
//! The instant of a profile is always a slice, so the counters of the profile are exact. A range goes from
//! the slice nearest to its start to the slice nearest to its end. All figures of a range are differences
//! between the slice at its end and the slice at its start. The rows add up exactly to the total, because
//! each allocation is counted in only one row: at a caller or at one of its stacks.

use crate::analysis::Analysis;
use crate::error::{Error, ErrorKind, Result};
use crate::replay::Merged;
use crate::site::SiteLabel;
use crate::slices::{Slices, counters_at};
use edleak_format::{Counters, SiteId, Trace};
use edleak_text::units;

/// The slice that a profile shows.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum At {
    /// The slice with the most live bytes.
    Peak,
    /// The last slice.
    #[default]
    End,
    /// The slice nearest to this time, in nanoseconds since the recording began.
    Time(u64),
}

/// The part of a trace that a profile covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Span {
    /// One instant: the profile counts the allocations and frees from the start of the record up to this
    /// instant.
    Instant(At),
    /// A range from one time to another, in nanoseconds since the recording began. If `from_ns` is missing,
    /// the range begins at the start of the record; if `to_ns` is missing, the range ends at the end of the
    /// record.
    Range {
        /// The start of the range; `None`: the start of the record.
        from_ns: Option<u64>,
        /// The end of the range; `None`: the end of the record.
        to_ns: Option<u64>,
    },
}

/// The figure by which the sites are ordered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Live bytes; for a range of time, the growth of the live bytes in the range.
    Live,
    /// The number of bytes allocated.
    Allocated,
    /// Live allocations; for a range of time, the growth of the number of live allocations in the range.
    Count,
    /// The number of allocations that the program freed before the next slice, so that they are in no slice.
    Churn,
}

/// The figures of one site, or of all sites. For a range, the live bytes and the live allocations are
/// differences and may be negative.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Figures {
    /// Number of live bytes.
    pub live_bytes: i128,
    /// Number of live allocations.
    pub live_count: i128,
    /// Number of bytes allocated.
    pub allocated_bytes: u64,
    /// Number of allocations.
    pub allocs: u64,
    /// Number of bytes freed.
    pub freed_bytes: u64,
    /// Number of frees.
    pub frees: u64,
    /// A lower bound of the number of allocations that were freed before the next slice.
    pub temporary_allocs: u64,
    /// A lower bound of the number of bytes in the allocations that were freed before the next slice.
    pub temporary_bytes: u64,
}

/// One site of a profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// The index of the site in [`Analysis::sites`].
    pub site: usize,
    /// The figures of the site.
    pub figures: Figures,
}

/// A time in the record, with its precision, which is the distance to the neighbouring slices.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Moment {
    /// Seconds since the recording began.
    pub time_s: f64,
    /// The distance in seconds from the slice at `time_s` to the slice before or after it, whichever is
    /// longer. The profile cannot show an event that is shorter than this distance.
    pub precision_s: f64,
}

/// A profile.
#[derive(Clone, PartialEq, Debug)]
pub struct Profile {
    /// The span that the user asked for.
    pub span: Span,
    /// The figure by which the rows are ordered.
    pub order: Order,
    /// The start of the range; `None` if the profile shows an instant, because its figures count from the
    /// start of the record.
    pub from: Option<Moment>,
    /// The instant that the profile shows, or the end of its range.
    pub to: Moment,
    /// The figures of the whole program: the sum over all sites.
    pub total: Figures,
    /// Every site with at least one figure that is not 0. The rows are sorted by the figure that `order`
    /// names, with the greatest value first; rows with equal values are sorted by the labels of their sites.
    pub rows: Vec<Row>,
}

impl Figures {
    fn between(before: &Counters, after: &Counters) -> Self {
        let live = |of: fn(&Counters) -> u64| i128::from(of(after)) - i128::from(of(before));
        Self {
            live_bytes: live(Counters::live_bytes),
            live_count: live(Counters::live_count),
            allocated_bytes: after.allocated_bytes.saturating_sub(before.allocated_bytes),
            allocs: after.allocs.saturating_sub(before.allocs),
            freed_bytes: after.freed_bytes.saturating_sub(before.freed_bytes),
            frees: after.frees.saturating_sub(before.frees),
            temporary_allocs: 0,
            temporary_bytes: 0,
        }
    }

    /// Adds the figures of another site to these figures.
    pub fn add(&mut self, other: &Self) {
        self.live_bytes = self.live_bytes.saturating_add(other.live_bytes);
        self.live_count = self.live_count.saturating_add(other.live_count);
        self.allocated_bytes = self.allocated_bytes.saturating_add(other.allocated_bytes);
        self.allocs = self.allocs.saturating_add(other.allocs);
        self.freed_bytes = self.freed_bytes.saturating_add(other.freed_bytes);
        self.frees = self.frees.saturating_add(other.frees);
        self.temporary_allocs = self.temporary_allocs.saturating_add(other.temporary_allocs);
        self.temporary_bytes = self.temporary_bytes.saturating_add(other.temporary_bytes);
    }

    /// The figure that `order` names, by which the profile sorts its rows.
    pub fn by(&self, order: Order) -> i128 {
        match order {
            Order::Live => self.live_bytes,
            Order::Allocated => self.allocated_bytes.into(),
            Order::Count => self.live_count,
            Order::Churn => self.temporary_allocs.into(),
        }
    }
}

impl Profile {
    /// The profile of a trace and its findings.
    ///
    /// # Errors
    /// `Value` if a time lies outside the record or a range is empty; `Unreadable` if the trace has no slice.
    pub fn of(trace: &Trace, findings: &Analysis, span: Span, order: Order) -> Result<Profile> {
        let merged = Merged::of(trace);
        let whole = Slices::of(trace, &merged, 0..=u64::MAX);
        if whole.instants().is_empty() {
            return Err(Error::new(
                ErrorKind::Unreadable,
                "the trace holds no slice, so there is nothing to profile",
            )
            .with_remedy("record the program again"));
        }
        let (first, last) = bounds(&whole, span)?;
        // To count temporary allocations, the function must read every slice of the span. So if the span is
        // not the whole record, the function reads the slices again.
        let tick = |index: usize| whole.instants()[index].tick;
        let is_whole = first.is_none() && last + 1 == whole.instants().len();
        let part = match is_whole {
            true => None,
            false => Some(Slices::of(trace, &merged, first.map_or(0, tick)..=tick(last))),
        };
        let slices = part.as_ref().unwrap_or(&whole);
        let before = first.map(|first| counters_at(trace, &merged, tick(first))).unwrap_or_default();
        let after = counters_at(trace, &merged, tick(last));
        let at = |counters: &[Counters], id: usize| counters.get(id).copied().unwrap_or(Counters::ZERO);

        let mut total = Figures::default();
        let mut rows = Vec::new();
        for (site, judged) in findings.sites.iter().enumerate() {
            let SiteLabel::Number(number) = judged.label else { continue };
            let Ok(id) = u32::try_from(number) else { continue };
            let mut figures = Figures::between(&at(&before, id as usize), &at(&after, id as usize));
            let temporary = slices.temporaries(SiteId(id));
            figures.temporary_allocs = temporary.allocs;
            figures.temporary_bytes = temporary.bytes;
            if figures != Figures::default() {
                total.add(&figures);
                rows.push(Row { site, figures });
            }
        }
        let label = |row: &Row| &findings.sites[row.site].label;
        rows.sort_by(|a, b| {
            b.figures.by(order).cmp(&a.figures.by(order)).then_with(|| label(a).cmp(label(b)))
        });
        let moment = |index: usize| Moment {
            time_s: whole.instants()[index].time_ns as f64 / 1e9,
            precision_s: whole.precision_ns(index) as f64 / 1e9,
        };
        Ok(Profile { span, order, from: first.map(moment), to: moment(last), total, rows })
    }
}

/// The first and the last slice of a span.
fn bounds(slices: &Slices, span: Span) -> Result<(Option<usize>, usize)> {
    let instants = slices.instants();
    let (start_ns, end) = (instants[0].time_ns, instants.len() - 1);
    let end_ns = instants[end].time_ns;
    // Selects the slice nearest to the given time; the HTML page selects a slice by the same rule.
    let at = |time_ns: u64| {
        let before = slices.newest_at(time_ns).unwrap_or(0);
        let distance = |index: usize| instants[index].time_ns.abs_diff(time_ns);
        match (before + 1).min(end) {
            _ if time_ns > end_ns => {
                Err(Error::new(ErrorKind::Value, format!("{} lies outside the record", exact(time_ns)))
                    .with_remedy(format!("give a time from 0s to {}", exact(end_ns))))
            }
            after if distance(after) < distance(before) => Ok(after),
            _ => Ok(before),
        }
    };
    match span {
        Span::Instant(At::Peak) => Ok((None, slices.peak().unwrap_or(end))),
        Span::Instant(At::End) => Ok((None, end)),
        Span::Instant(At::Time(time_ns)) => Ok((None, at(time_ns)?)),
        Span::Range { from_ns, to_ns } => {
            if let (Some(from), Some(to)) = (from_ns, to_ns)
                && from >= to
            {
                let message = format!("`--from` ({}) is not before `--to` ({})", exact(from), exact(to));
                return Err(Error::new(ErrorKind::Value, message).with_remedy("swap the two"));
            }
            let from = from_ns.map_or(Ok(0), at)?;
            let to = to_ns.map_or(Ok(end), at)?;
            if from >= to {
                return Err(Error::new(
                    ErrorKind::Value,
                    format!(
                        "no two slices lie between {} and {}",
                        exact(from_ns.unwrap_or(start_ns)),
                        exact(to_ns.unwrap_or(end_ns)),
                    ),
                )
                .with_remedy(format!(
                    "give a longer range; slices are {} apart there",
                    units::duration(slices.precision_ns(to) as f64 / 1e9)
                )));
            }
            Ok((Some(from), to))
        }
    }
}

/// A time with milliseconds, so that the user can give the printed time as the value of an option.
fn exact(time_ns: u64) -> String {
    format!("{}.{:03}s", time_ns / 1_000_000_000, time_ns / 1_000_000 % 1000)
}
