//! Builds the history of a recording, which may be a trace or series lines.

use super::{History, HistoryOptions, of_lines, of_trace};
use crate::load::Input;
use crate::site::JudgedSite;

impl History {
    /// The history of a recording; `judged` has all its sites with their verdicts. If the counters of all
    /// sites take too much memory, the history stores only the sum of the counters of the least important
    /// sites.
    pub fn of(recording: &Input, judged: &[JudgedSite], options: HistoryOptions) -> Self {
        let mut history = match recording {
            Input::Trace(trace) => of_trace::history_of(trace, judged, options),
            Input::Lines(lines) => of_lines::history_of(lines, judged, options),
        };
        history.keep(judged, options.packed_bytes);
        history
    }
}
