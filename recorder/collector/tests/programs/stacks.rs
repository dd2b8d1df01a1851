//! A program that captures a stack with frames of many kinds of Rust code: closures, iterators, the
//! comparison function of a sort, and a recursion over boxed trait objects.

unsafe extern "C" {
    fn capture();
}

trait Node: Send {
    fn visit(&self, depth: u32) -> u64;
}

struct Inner(Box<dyn Node>, String);
struct Leaf(Vec<u32>);

impl Node for Inner {
    fn visit(&self, depth: u32) -> u64 {
        (0..depth % 3 + 1).map(|i| self.0.visit(depth + i) + self.1.len() as u64).sum()
    }
}

impl Node for Leaf {
    fn visit(&self, depth: u32) -> u64 {
        let mut values = self.0.clone();
        values.sort_by(|left, right| {
            // SAFETY: any code may call `capture`, and `capture` does not return.
            unsafe { capture() };
            (left ^ depth).cmp(right)
        });
        u64::from(values[0])
    }
}

fn main() {
    let mut tree: Box<dyn Node> = Box::new(Leaf(vec![3, 1, 2]));
    for level in 0..12 {
        tree = Box::new(Inner(tree, format!("level {level}")));
    }
    let result = std::thread::spawn(move || tree.visit(1)).join();
    std::process::exit(i32::from(result.is_ok()));
}
