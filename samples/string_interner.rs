//! A table that does not leak: the program stores each word of a finite vocabulary once. Soon the table has
//! all words of the vocabulary, so it stops growing.
//!
//#Expect: no leak
#[path = "common/pace.rs"]
mod pace;

use std::collections::HashSet;
use std::hint::black_box;

#[inline(never)]
fn intern(words: &mut HashSet<String>, number: u32) {
    let mut word = [0; 32];
    let len = {
        use std::io::Write;
        let mut rest = &mut word[..];
        write!(rest, "identifier_{number}").expect("32 bytes are enough");
        32 - rest.len()
    };
    let word = std::str::from_utf8(&word[..len]).expect("written as text");
    if !words.contains(word) {
        words.insert(black_box(word.to_owned()));
    }
}

fn main() {
    let mut pace = pace::Pace::new(6.0, 400);
    let mut random = pace::Random::new();
    let mut words = HashSet::with_capacity(300);
    while pace.wait() {
        intern(&mut words, random.below(150));
    }
}
