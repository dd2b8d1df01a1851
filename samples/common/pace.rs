//! What the Rust samples share: a fixed number of ticks on a monotonic clock, and a fixed random sequence.
//!
//! A sample does its work by the tick, never by the time that has passed: a machine that stalls makes a sample late, and
//! the ticks it missed follow at once, so the totals of two runs are equal to the byte.
#![allow(dead_code)] // no sample uses all of it

use std::time::{Duration, Instant};

pub struct Pace {
    start: Instant,
    period: Duration,
    pub tick: u32,
    pub ticks: u32,
}

impl Pace {
    /// `hz` ticks a second for `seconds`, or for N where the arguments hold `--seconds N`.
    pub fn new(seconds: f64, hz: u32) -> Pace {
        let mut args = std::env::args().skip_while(|arg| arg != "--seconds").skip(1);
        let seconds = args.next().and_then(|n| n.parse().ok()).unwrap_or(seconds);
        let ticks = (seconds * f64::from(hz)) as u32;
        Pace { start: Instant::now(), period: Duration::from_secs(1) / hz, tick: 0, ticks }
    }

    /// How much of the run is over, 0 to 1.
    pub fn fraction(&self) -> f64 {
        f64::from(self.tick) / f64::from(self.ticks)
    }

    /// Waits for the next tick; false after the last one.
    pub fn wait(&mut self) -> bool {
        if self.tick >= self.ticks {
            return false;
        }
        self.tick += 1;
        let due = self.start + self.period * self.tick;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        true
    }
}

/// The same sequence in every run (xorshift64).
pub struct Random(u64);

impl Random {
    pub fn new() -> Random {
        Random(0x9e37_79b9_7f4a_7c15)
    }

    pub fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) as u32) % limit
    }
}
