//! Functions for all Rust samples: run at a fixed number of ticks per second, and make random numbers that
//! are the same in every run.
//!
//! A sample does its work by ticks and not by elapsed time. If the machine stalls, the sample makes the
//! missed ticks afterwards, without a pause between these ticks. So two runs of a sample have exactly the
//! same totals.
#![allow(dead_code)] // each sample uses only a part of this file

use std::time::{Duration, Instant};

pub struct Pace {
    start: Instant,
    period: Duration,
    pub tick: u32,
    pub ticks: u32,
}

impl Pace {
    /// Makes `hz` ticks per second. The run takes `seconds`; if the program's arguments are `--seconds N`, it
    /// takes N seconds instead.
    pub fn new(seconds: f64, hz: u32) -> Pace {
        let mut args = std::env::args().skip_while(|arg| arg != "--seconds").skip(1);
        let seconds = args.next().and_then(|n| n.parse().ok()).unwrap_or(seconds);
        let ticks = (seconds * f64::from(hz)) as u32;
        Pace { start: Instant::now(), period: Duration::from_secs(1) / hz, tick: 0, ticks }
    }

    /// The share of the run that is over: 0 at the start, 1 at the end.
    pub fn fraction(&self) -> f64 {
        f64::from(self.tick) / f64::from(self.ticks)
    }

    /// Waits for the next tick. Returns false after the last tick.
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

/// Random numbers whose sequence is the same in every run (xorshift64).
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
