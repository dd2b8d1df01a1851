//! Decides at which times of a recording the collector takes a slice. The period between two slices is fixed,
//! or doubles as the recording becomes longer.
//!
//! A tick is half of the shortest period, so every regular slice has an even tick. The final slice gets an
//! odd tick. A reader of the trace takes the totals from the final slice, but does not use the final slice as
//! a point of a curve, because the target's destructors may have freed memory before this slice.

use crate::error::{Error, ErrorKind};
use edleak_text::units;
use std::time::Duration;

/// The first and shortest value of an automatic period.
const FINEST: Duration = Duration::from_millis(20);
/// An automatic period doubles when the recording has lasted for this number of periods. After a doubling of
/// the period, every second older slice lies at a multiple of the new period.
const MOST_SLICES: u64 = 1024;

/// Estimated time that the collector needs for one watched stack when it takes a slice.
const STACK_WORK: Duration = Duration::from_nanos(200);
/// The work for watched stacks may take at most 1/`WORK_SHARE` of an automatic period.
const WORK_SHARE: u32 = 8;
/// If at least this number of stacks is watched, the collector assumes that slices are lost because of the
/// work for stacks.
const MANY_STACKS: usize = 1 << 10;
/// An automatic period doubles when the count of lost slices reaches this number. Each slice that the
/// collector takes in time reduces the count of lost slices by 1/8. A long pause in which the collector takes
/// no slice adds at most two to the count of lost slices, because the pause may only mean that the machine
/// was suspended.
const MOST_LOST: u64 = 4;
/// The work for watched stacks can lengthen an automatic period only up to this length.
const LONGEST_FOR_STACKS: Duration = Duration::from_millis(160);

/// The interval between slices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Period {
    /// The period begins at 20 ms and doubles repeatedly, so that a recording of any length ends with
    /// several hundred evenly spaced slices.
    Auto,
    /// The interval that the user asked for.
    Every(Duration),
}

impl std::str::FromStr for Period {
    type Err = Error;

    fn from_str(text: &str) -> Result<Period, Error> {
        if text == "auto" {
            return Ok(Period::Auto);
        }
        let period = units::parse_duration(text)?;
        if period < Duration::from_millis(1) {
            return Err(Error::new(ErrorKind::Value, "a period is at least 1ms"));
        }
        Ok(Period::Every(period))
    }
}

/// Determines the ticks of a recording at which a slice is due.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    tick: Duration,
    stride: u64,
    doubles: bool,
    /// Number of recently lost slices; each slice that the collector takes in time makes this number 1/8
    /// smaller.
    lost: u64,
}

impl Schedule {
    /// The schedule of a recording that begins now.
    pub(crate) fn new(period: Period) -> Schedule {
        match period {
            Period::Auto => Schedule { tick: FINEST / 2, stride: 2, doubles: true, lost: 0 },
            Period::Every(period) => Schedule { tick: period / 2, stride: 2, doubles: false, lost: 0 },
        }
    }

    /// The length of a tick, which is the unit of time in the trace.
    pub(crate) fn tick(&self) -> Duration {
        self.tick
    }

    /// The current period (the time between two slices) in ticks.
    pub(crate) fn period_ticks(&self) -> u64 {
        self.stride
    }

    /// The current period (the time between two slices) as a duration.
    pub(crate) fn period(&self) -> Duration {
        Duration::from_nanos((self.tick.as_nanos() as u64).saturating_mul(self.stride))
    }

    /// Whether a tick is a multiple of the current period, so that a regular slice is due at this tick.
    pub(crate) fn is_even(&self, tick: u64) -> bool {
        tick.is_multiple_of(self.stride)
    }

    /// The tick that contains the instant `elapsed` after the start of the recording.
    pub(crate) fn tick_at(&self, elapsed: Duration) -> u64 {
        (elapsed.as_nanos() / self.tick.as_nanos().max(1)) as u64
    }

    /// The first tick after `tick` at which a slice is due.
    pub(crate) fn due_after(&self, tick: u64) -> u64 {
        (tick / self.stride + 1) * self.stride
    }

    /// The latest tick, not after `tick`, at which a slice is due, and the number of lost slices. A lost
    /// slice was due after the tick `last` and before the returned tick, but the collector did not take it.
    pub(crate) fn due_at(&self, last: u64, tick: u64) -> (u64, u64) {
        let due = tick / self.stride * self.stride;
        (due, (due.saturating_sub(last) / self.stride).saturating_sub(1))
    }

    /// The tick of the final slice, taken at the time `elapsed`; `last` is the tick of the slice before the
    /// final slice. The tick of the final slice is odd, because the ticks of regular slices are even.
    pub(crate) fn final_tick(&self, last: u64, elapsed: Duration) -> u64 {
        self.tick_at(elapsed).max(last + 1) | 1
    }

    /// The start of a tick, as time since the start of the recording.
    pub(crate) fn start_of(&self, tick: u64) -> Duration {
        Duration::from_nanos((self.tick.as_nanos() as u64).saturating_mul(tick))
    }

    /// Notes that the collector has taken a slice at `tick`, after `missed` lost slices. `stacks` is the
    /// number of watched stacks of the target. An automatic period doubles when the recording has lasted for
    /// `MOST_SLICES` periods, or if the work for stacks takes too much of the period. On a busy machine,
    /// lost slices show that the work for stacks takes too much time. Doubling the period is better than
    /// losing slices: a longer period only gives a curve fewer points, but lost slices would leave gaps of
    /// unknown length in the curve.
    pub(crate) fn taken(&mut self, tick: u64, stacks: usize, missed: u64) {
        self.lost = if missed > 0 { self.lost + missed.min(2) } else { self.lost - self.lost.div_ceil(8) };
        let work = STACK_WORK.saturating_mul(u32::try_from(stacks).unwrap_or(u32::MAX));
        let is_too_much =
            work * WORK_SHARE > self.period() || (stacks >= MANY_STACKS && self.lost >= MOST_LOST);
        let is_too_short = self.period() <= LONGEST_FOR_STACKS / 2 && is_too_much;
        if self.doubles && (is_too_short || tick / self.stride >= MOST_SLICES) {
            self.stride *= 2;
            self.lost = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_a_duration_of_a_millisecond_at_least_or_auto() {
        assert_eq!("auto".parse(), Ok(Period::Auto));
        assert_eq!("2s".parse(), Ok(Period::Every(Duration::from_secs(2))));
        assert!("10us".parse::<Period>().is_err());
        assert!("2 parsecs".parse::<Period>().is_err());
    }

    #[test]
    fn any_length_of_an_automatic_recording_has_several_hundred_even_slices() {
        for seconds in [12u64, 60, 3600, 86_400, 5 * 7 * 86_400] {
            let mut schedule = Schedule::new(Period::Auto);
            let last = schedule.tick_at(Duration::from_secs(seconds));
            let (mut tick, mut taken) = (0, vec![0]);
            while schedule.due_after(tick) <= last {
                tick = schedule.due_after(tick);
                taken.push(tick);
                schedule.taken(tick, 0, 0);
            }
            let even = taken.iter().filter(|&&tick| tick % schedule.stride == 0).count();
            assert!((500..=1025).contains(&even), "{seconds} s: {even} slices");
            assert!(taken.len() < 20_000, "{seconds} s: {} slices in all", taken.len());
        }
    }

    #[test]
    fn many_stacks_lengthen_an_automatic_period_and_no_other() {
        let period_with = |period, stacks| {
            let mut schedule = Schedule::new(period);
            (1..=100).for_each(|slice| schedule.taken(schedule.stride * slice, stacks, 0));
            schedule.period().as_millis()
        };
        let lengths = [0, 5_000, 13_000, 32_768, usize::MAX].map(|stacks| period_with(Period::Auto, stacks));
        assert_eq!(lengths, [20, 20, 40, 80, 160]);
        assert_eq!(period_with(Period::Every(Duration::from_millis(20)), 32_768), 20);
    }

    #[test]
    fn lost_slices_lengthen_the_automatic_period_of_a_target_with_many_stacks() {
        let period_with = |stacks, missed: [u64; 4]| {
            let mut schedule = Schedule::new(Period::Auto);
            for slice in 1..=400 {
                schedule.taken(schedule.stride * slice, stacks, missed[slice as usize % 4]);
            }
            schedule.period().as_millis()
        };
        let often = [0, 2, 0, 2];
        assert_eq!(period_with(MANY_STACKS, often), 160);
        assert_eq!(period_with(MANY_STACKS - 1, often), 20, "slices are not lost because of stacks");
        assert_eq!(period_with(MANY_STACKS, [0, 0, 0, 1]), 20, "one lost slice in four");
    }

    #[test]
    fn ticks_passed_over_are_counted() {
        let schedule = Schedule::new(Period::Every(Duration::from_secs(1)));
        assert_eq!(schedule.due_at(8, 11), (10, 0));
        assert_eq!(schedule.due_at(8, 18), (18, 4));
        assert_eq!(schedule.start_of(18), Duration::from_secs(9));
    }

    #[test]
    fn a_final_slice_is_never_on_the_grid_and_always_the_last() {
        for period in [Period::Auto, Period::Every(Duration::from_secs(1))] {
            let schedule = Schedule::new(period);
            for (last, elapsed_ms) in [(0, 0), (0, 500), (4, 2001), (4, 2900), (6, 100)] {
                let tick = schedule.final_tick(last, Duration::from_millis(elapsed_ms));
                assert!(tick > last && !schedule.is_even(tick), "{period:?} {last} {elapsed_ms}: {tick}");
            }
        }
    }
}
