//! The program of paths.h in Rust: three call paths lead to one allocation site. The site is the function
//! that makes the vector, not code inside Vec.

#[path = "../../../samples/common/pace.rs"]
mod pace;

use std::hint::black_box;

#[inline(always)]
fn new_node(tick: u32) -> Box<[u32]> {
    vec![tick; 16].into_boxed_slice() // the allocation
}

#[inline(never)]
fn make(tick: u32) -> Box<[u32]> {
    black_box(new_node(black_box(tick))) // inlined here
}

#[inline(never)]
fn descend(depth: u32, tick: u32) -> Box<[u32]> {
    if depth == 0 {
        return black_box(make(tick)); // the bottom
    }
    let mut node = black_box(descend(depth - 1, tick)); // the recursion
    node[0] += depth;
    node
}

// Each function adds another number, because the compiler would merge equal functions.
#[inline(never)]
fn path_freed(tick: u32) -> Box<[u32]> {
    black_box(descend(24, tick + 1)) // freed at once
}

#[inline(never)]
fn path_window(tick: u32) -> Box<[u32]> {
    black_box(descend(24, tick + 2)) // kept for a while
}

#[inline(never)]
fn path_kept(tick: u32) -> Box<[u32]> {
    black_box(descend(24, tick)) // leaks
}

fn main() {
    let mut window: Vec<Box<[u32]>> = (0..32).map(|_| Box::from([])).collect();
    let mut pace = pace::Pace::new(4.0, 200);
    while pace.wait() {
        let tick = pace.tick;
        drop(path_freed(tick));
        window[tick as usize % 32] = path_window(tick);
        std::mem::forget(path_kept(tick));
    }
}
