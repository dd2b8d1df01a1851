//! The charts of a page without a script: the timeline, and the curve of a leak.

use super::escape::text;
use edleak_analysis::history::History;
use edleak_text::units;
use std::fmt::Write;

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 180.0;

/// Draws the live bytes and the resident bytes of the process, for the whole recording.
pub(super) fn timeline(history: &History) -> String {
    let instants = &history.instants;
    let end_s = instants.last().map_or(0.0, |instant| instant.at_s);
    if instants.len() < 2 || end_s <= 0.0 {
        return "<p class=\"empty\">The recording has too few slices for a curve.</p>".into();
    }
    let held = |i: usize| instants[i].resident_bytes.saturating_add(instants[i].swap_bytes) as f64;
    let live = |i: usize| instants[i].counters.live_bytes() as f64;
    let highest = (0..instants.len()).map(|i| held(i).max(live(i))).fold(1.0, f64::max);
    let x = |i: usize| WIDTH * instants[i].at_s / end_s;
    let path = |value: &dyn Fn(usize) -> f64| {
        let mut path = String::new();
        let mut is_broken = true;
        for (i, instant) in instants.iter().enumerate() {
            if instant.is_missing {
                is_broken = true;
                continue;
            }
            let y = HEIGHT - HEIGHT * value(i) / highest;
            // Writing to a string cannot fail.
            let _ = write!(path, "{}{:.1} {y:.1}", if is_broken { 'M' } else { 'L' }, x(i));
            is_broken = false;
        }
        path
    };
    let resident = match history.has_resident {
        true => format!("<path class=\"resident\" d=\"{}\"/>", path(&held)),
        false => String::new(),
    };
    let figures = format!(
        "Live bytes over {}: {} at the end, {} at the peak.",
        units::duration(end_s),
        units::bytes(live(instants.len() - 1)),
        units::bytes(history.peak.live_bytes as f64)
    );
    let legend = if history.has_resident { "live (solid) and resident (dashed)" } else { "live" };
    format!(
        "<p class=\"axis\"><span>{}</span></p><svg class=\"plain\" viewBox=\"0 -4 {WIDTH} {}\" \
         preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">\
         {resident}<path class=\"live\" d=\"{}\"/></svg>\
         <p class=\"axis\"><span>0 B, 0 s</span><span>{}</span></p><p class=\"note\">Bytes: {legend}. {}</p>",
        text(&units::bytes(highest)),
        HEIGHT + 8.0,
        text(&figures),
        path(&live),
        text(&units::duration(end_s)),
        text(&figures),
    )
}

/// Draws the curve of one site.
pub(super) fn sparkline(curve: &[f64], label: &str) -> String {
    let highest = curve.iter().copied().fold(1.0, f64::max);
    let step = 160.0 / (curve.len().max(2) - 1) as f64;
    let points: Vec<String> = curve
        .iter()
        .enumerate()
        .map(|(i, bytes)| format!("{:.1} {:.1}", i as f64 * step, 30.0 - 28.0 * bytes / highest))
        .collect();
    format!(
        "<svg class=\"spark\" viewBox=\"0 0 160 32\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{}\">\
         <path d=\"M{}\"/></svg>",
        text(label),
        points.join("L")
    )
}
