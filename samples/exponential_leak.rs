//! A leak that grows exponentially: each subscriber adds new subscribers, so the rate is proportional to the
//! number of subscribers.
//!
//#Expect: Leak in subscribe
//#Expect: nothing else
#[path = "common/pace.rs"]
mod pace;

use std::hint::black_box;

struct Subscriber {
    _filter: [u8; 100],
}

#[inline(never)]
fn subscribe() -> Box<Subscriber> {
    black_box(Box::new(Subscriber { _filter: [0; 100] }))
}

fn main() {
    let mut pace = pace::Pace::new(5.0, 50);
    let mut subscribers = Vec::with_capacity(100_000);
    while pace.wait() {
        // From the start to the end of the run, the number of subscribers grows by the factor e^8.
        let wanted = (8.0 * pace.fraction()).exp() as usize;
        while subscribers.len() < wanted {
            subscribers.push(subscribe());
        }
    }
    black_box(&subscribers);
    std::mem::forget(subscribers);
}
