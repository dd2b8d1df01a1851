//! Makes one allocation of a special size. The stack of this allocation has frames of trait objects, and of
//! comparison functions that qsort and Rust's sort call.

use std::ffi::{c_int, c_void};
use std::hint::black_box;

trait Visit: Send {
    fn visit(&self, depth: u32) -> u64;
}

struct Node(Box<dyn Visit>);
struct Leaf;

impl Visit for Node {
    #[inline(never)]
    fn visit(&self, depth: u32) -> u64 {
        black_box(self.0.visit(depth + 1)) + 1
    }
}

impl Visit for Leaf {
    #[inline(never)]
    fn visit(&self, depth: u32) -> u64 {
        if depth != 4 {
            return black_box(u64::from(depth));
        }
        black_box(Vec::<u8>::with_capacity(54321)).len() as u64 // the allocation
    }
}

unsafe extern "C" {
    fn qsort(
        items: *mut c_void,
        count: usize,
        size: usize,
        compare: extern "C" fn(*const c_void, *const c_void) -> c_int,
    );
}

extern "C" fn compare(left: *const c_void, _right: *const c_void) -> c_int {
    let tree: Box<dyn Visit> = Box::new(Node(Box::new(Node(Box::new(Leaf)))));
    // SAFETY: qsort calls `compare` with pointers to items of the array.
    let depth = unsafe { left.cast::<u32>().read() };
    black_box(tree.visit(depth)) as c_int
}

#[inline(never)]
fn sort_in_c(depth: u32) -> u32 {
    let mut values = [depth, 0];
    // SAFETY: `values` has two items of four bytes.
    unsafe { qsort(values.as_mut_ptr().cast(), 2, 4, compare) };
    black_box(values[0])
}

#[inline(never)]
fn sort_in_rust() -> u32 {
    let mut values = [2, 1];
    values.sort_by(|left, right| black_box(sort_in_c(*left.max(right))).cmp(right));
    values[0]
}

fn main() {
    black_box(std::thread::spawn(|| sort_in_rust()).join().expect("no panic"));
}
