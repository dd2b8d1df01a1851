//! Makes the history of series lines: live bytes and live count at each instant. The history is made from the
//! points of the input, so the options of the loader must say that it keeps these points.
//!
//! Series lines do not give the bytes that were allocated and freed between two slices. So if live bytes
//! rise, the history counts the rise as allocated bytes; if they fall, it counts the fall as freed bytes. So
//! in a history of series lines, the numbers of allocated and freed bytes are only lower bounds, and
//! [`History::has_turnover`] is false.

use super::{History, HistoryOptions, Instant, PackedBuilder, Peak, SiteHistory};
use crate::load::line_series::LineSeries;
use crate::site::{JudgedSite, SiteLabel};
use edleak_format::Counters;
use std::collections::HashMap;

pub(super) fn history_of(lines: &[LineSeries], judged: &[JudgedSite], options: HistoryOptions) -> History {
    let points = |line: &LineSeries| line.series.absent().saturating_add(line.series.points());
    let slices = lines.iter().map(points).max().unwrap_or(0);
    let period_s = lines.first().map_or(0.0, |line| line.period_s);
    let step = slices.div_ceil(options.instants.max(2) as u64 - 1).max(1);
    let mut ends: Vec<u64> = (0..slices).step_by(usize::try_from(step).unwrap_or(usize::MAX)).collect();
    if ends.last().is_some_and(|&last| last + 1 < slices) {
        ends.push(slices - 1);
    }
    let by_label: HashMap<&SiteLabel, &LineSeries> = lines.iter().map(|line| (&line.label, line)).collect();
    let mut sums = vec![Counters::ZERO; ends.len()];
    let mut all = Vec::with_capacity(judged.len());
    for site in judged {
        all.push(match by_label.get(&site.label) {
            Some(line) => of_line(line, site, &ends, period_s, &mut sums),
            None => SiteHistory {
                label: site.label.clone(),
                packed: Some(super::Packed::default()),
                peak: Peak::default(),
                live_bytes_at_peak: 0,
                live_count_at_peak: 0,
            },
        });
    }
    let at_s = |slice: u64| slice as f64 * period_s;
    let instants: Vec<Instant> = ends
        .iter()
        .zip(&sums)
        .map(|(&slice, &counters)| Instant { at_s: at_s(slice), counters, ..Instant::default() })
        .collect();
    let peak = (0..instants.len()).rev().max_by_key(|&i| instants[i].counters.live_bytes());
    if let Some(instant) = peak {
        for site in &mut all {
            let counters = site.packed.as_ref().map_or(Counters::ZERO, |packed| packed.at(instant));
            (site.live_bytes_at_peak, site.live_count_at_peak) =
                (counters.live_bytes(), counters.live_count());
        }
    }
    History {
        peak: peak.map_or_else(Peak::default, |i| Peak {
            at_s: instants[i].at_s,
            live_bytes: instants[i].counters.live_bytes(),
        }),
        judged_until_s: instants.last().map_or(0.0, |instant| instant.at_s),
        instants,
        sites: all,
        ..History::default()
    }
}

fn of_line(
    line: &LineSeries,
    site: &JudgedSite,
    ends: &[u64],
    period_s: f64,
    sums: &mut [Counters],
) -> SiteHistory {
    let (mut builder, mut peak) = (PackedBuilder::default(), Peak::default());
    let (mut slice, mut instant) = (line.series.absent(), 0);
    let mut now = Counters::ZERO;
    // Stores `now`, the current counters of the site, for each instant of the history that ends before slice
    // `until`.
    let mut end_until = |until: u64, now: &Counters, sums: &mut [Counters]| {
        while ends.get(instant).is_some_and(|&end| end < until) {
            builder.push(instant, now);
            let sum = &mut sums[instant];
            sum.allocated_bytes = sum.allocated_bytes.saturating_add(now.allocated_bytes);
            sum.freed_bytes = sum.freed_bytes.saturating_add(now.freed_bytes);
            sum.allocs = sum.allocs.saturating_add(now.allocs);
            sum.frees = sum.frees.saturating_add(now.frees);
            instant += 1;
        }
    };
    end_until(slice, &now, sums);
    for (point, times) in line.kept.iter().flat_map(|kept| &kept.runs) {
        let (bytes, count) = (point.live_bytes, point.live_count);
        now.allocated_bytes = now.allocated_bytes.saturating_add(bytes.saturating_sub(now.live_bytes()));
        now.freed_bytes = now.freed_bytes.saturating_add(now.live_bytes().saturating_sub(bytes));
        if point.allocs > 0 {
            (now.allocs, now.frees) = (point.allocs, point.frees);
        } else {
            now.allocs = now.allocs.saturating_add(count.saturating_sub(now.live_count()));
            now.frees = now.frees.saturating_add(now.live_count().saturating_sub(count));
        }
        if bytes > peak.live_bytes {
            peak = Peak { at_s: slice as f64 * period_s, live_bytes: bytes };
        }
        slice = slice.saturating_add(*times);
        end_until(slice, &now, sums);
    }
    end_until(u64::MAX, &now, sums);
    SiteHistory {
        label: site.label.clone(),
        packed: Some(builder.finish()),
        peak,
        live_bytes_at_peak: 0,
        live_count_at_peak: 0,
    }
}
