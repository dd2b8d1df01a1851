//! A cache that does not leak: its entries expire after half a second. After the first half second, the cache
//! does not grow, because new entries replace expired entries.
//!
//#Expect: no leak
#[path = "common/pace.rs"]
mod pace;

use std::collections::VecDeque;
use std::hint::black_box;

#[inline(never)]
fn make_entry(size: usize) -> Vec<u8> {
    black_box(vec![0; size])
}

fn main() {
    let mut pace = pace::Pace::new(6.0, 200);
    let mut random = pace::Random::new();
    let mut entries = VecDeque::with_capacity(256);
    while pace.wait() {
        while entries.front().is_some_and(|&(expires, _)| expires <= pace.tick) {
            entries.pop_front();
        }
        entries.push_back((pace.tick + 100, make_entry(200 + random.below(200) as usize)));
    }
}
