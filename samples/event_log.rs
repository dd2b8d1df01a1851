//! A leak: the program formats every event and keeps the text in a `Vec<String>`, from which it never removes
//! a text.
//!
//#Expect: Leak in log_event
//#Expect: nothing else
#[path = "common/pace.rs"]
mod pace;

use std::hint::black_box;

#[inline(never)]
fn log_event(log: &mut Vec<String>, tick: u32) {
    log.push(black_box(format!("event {tick}: the connection was closed by the other side")));
}

fn main() {
    let mut pace = pace::Pace::new(5.0, 200);
    let mut log = Vec::with_capacity(8192);
    while pace.wait() {
        log_event(&mut log, pace.tick);
    }
    std::mem::forget(log);
}
