//! A history that does not leak: a ring buffer keeps the last 150 commands, and each new command replaces the
//! oldest command.
//!
//#Expect: no leak
#[path = "common/pace.rs"]
mod pace;

use std::collections::VecDeque;
use std::hint::black_box;

#[inline(never)]
fn remember(history: &mut VecDeque<String>, tick: u32) {
    if history.len() == 150 {
        history.pop_front();
    }
    history.push_back(black_box(format!("command number {tick} with its arguments")));
}

fn main() {
    let mut pace = pace::Pace::new(5.0, 300);
    let mut history = VecDeque::with_capacity(160);
    while pace.wait() {
        remember(&mut history, pace.tick);
    }
}
