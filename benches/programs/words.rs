//! A typical Rust program that allocates: it sorts and joins maps of strings, several times.
use std::collections::{BTreeMap, HashMap};

fn main() {
    let mut state = 1u64;
    let mut total = 0;
    for _ in 0..6 {
        let mut counts: HashMap<String, Vec<u32>> = HashMap::new();
        for i in 0..400_000u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            counts.entry(format!("word-{}", (state >> 33) % 60_000)).or_default().push(i);
        }
        let sorted: BTreeMap<String, Vec<u32>> = counts.into_iter().collect();
        let text: Vec<String> = sorted.iter().map(|(word, at)| format!("{word}:{}", at.len())).collect();
        total += text.join(",").len();
    }
    println!("{total}");
}
