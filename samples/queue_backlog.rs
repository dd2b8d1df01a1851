//! A leak without a missing free: in the time in which the program handles three messages, four messages
//! arrive. The program frees each message after handling it, but the queue of messages grows for ever.
//!
//#Expect: Leak in receive
//#Expect: nothing else
#[path = "common/pace.rs"]
mod pace;

use std::collections::VecDeque;
use std::hint::black_box;

#[inline(never)]
fn receive() -> Box<[u8; 256]> {
    black_box(Box::new([0; 256]))
}

fn main() {
    let mut pace = pace::Pace::new(6.0, 200);
    let mut queue = VecDeque::with_capacity(4096);
    while pace.wait() {
        queue.push_back(receive());
        if pace.tick % 4 != 0 {
            black_box(queue.pop_front());
        }
    }
    std::mem::forget(queue);
}
