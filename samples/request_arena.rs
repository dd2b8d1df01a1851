//! Each request has an arena: a vector of buffers that is freed together with the request.
//!
//#Expect: no leak
#[path = "common/pace.rs"]
mod pace;

use std::hint::black_box;

#[inline(never)]
fn serve(random: &mut pace::Random) -> Vec<Box<[u8]>> {
    let buffers = 1 + random.below(20);
    (0..buffers).map(|i| black_box(vec![0_u8; 64 + 16 * i as usize]).into_boxed_slice()).collect()
}

fn main() {
    let mut pace = pace::Pace::new(5.0, 200);
    let mut random = pace::Random::new();
    let mut last = Vec::new();
    while pace.wait() {
        // The program drops the arena of the previous request only after it has served the current request.
        // It acts like a server that still sends the previous answer while it serves the current request.
        last = black_box((serve(&mut random), last)).0;
    }
    black_box(last);
}
