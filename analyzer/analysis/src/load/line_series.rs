//! The data of a text input that the loader keeps in memory: one condensed series for each site.

use crate::frame::Address;
use crate::site::{SiteLabel, Survivor, Totals};
use edleak_format::SymbolFrame;
use edleak_model::series::{Births, Point, Series};

/// Options for the parts of an input that the loader keeps in memory.
#[derive(Clone, Copy, Default, Debug)]
pub struct LoadOptions {
    /// Whether the loader keeps the points of text inputs, so that edleak-analyze can print the points as
    /// series lines again. If `keep_points` is `true`, the loader needs memory in proportion to the size of
    /// the input.
    pub keep_points: bool,
}

/// One site of a text input.
#[derive(Clone, Debug)]
pub struct LineSeries {
    /// The label of the site.
    pub label: SiteLabel,
    /// For a stack of a watched site: the label of the watched site. For any other site: `None`.
    pub parent: Option<SiteLabel>,
    /// The reason why the recording does not suffice for a verdict, if the line gives one. The lines of one
    /// recording give the same reason.
    pub undecided: Option<String>,
    /// Seconds between two slices.
    pub period_s: f64,
    /// The series, condensed.
    pub series: Series,
    /// The series of the site together with all its stacks; `None`: the site has no stacks.
    pub with_stacks: Option<Series>,
    /// The counters of the site at the end of the input.
    pub totals: Totals,
    /// The place of the site in the code, innermost frame first, if the line gives the place.
    pub stack: Vec<Address>,
    /// The allocations that are still live at the end, for each epoch in which they were made.
    pub(crate) survivors: Vec<Survivor>,
    /// The points of the input; `None` if [`LoadOptions::keep_points`] is `false`.
    pub kept: Option<KeptPoints>,
}

/// The points of one site of a text input, which the loader keeps so that edleak-analyze can print them
/// again.
#[derive(Clone, Default, Debug)]
pub struct KeptPoints {
    /// Each point, with the number of slices in a row that have the counters of this point. A short input can
    /// stand for many slices with equal counters; stored as runs, these slices take little memory.
    pub runs: Vec<(Point, u64)>,
    /// Whether the input gave the number of live allocations.
    pub has_counts: bool,
    /// The points of the site together with its stacks, as the input gives them.
    pub with_stacks: Option<Vec<(Point, u64)>>,
    /// For each birth epoch, the allocations that are still live at the end, as the input gives them.
    pub births: Option<Births>,
}

/// Removes the line and column from an error message of serde_json. The line would be wrong: serde_json gets
/// each line of the input separately, so it always says line 1.
pub(super) fn short(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

/// Reads one entry of a stack as edLeak writes it: `0x7ff1eb2c936c:operator new(unsigned long)`, or the
/// address alone.
pub(super) fn address_of(text: &str) -> Address {
    let (address, function) =
        text.split_once(':').map_or((text, None), |(address, name)| (address, Some(name)));
    let digits = address.trim_start_matches("0x");
    let parsed = u64::from_str_radix(digits, 16).ok();
    // If an entry has no address, the whole entry is a name, because series lines of other tools may have
    // names instead of addresses.
    let function = if parsed.is_some() { function } else { Some(text) };
    let frame = function.map(|name| SymbolFrame {
        function: Some(name.to_owned()),
        file: None,
        line: 0,
        is_inlined: false,
    });
    Address { address: parsed.unwrap_or(0), frames: frame.into_iter().collect(), ..Address::default() }
}
