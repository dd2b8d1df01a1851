//! A test program with generic functions, closures, trait objects, and inlined functions of the standard
//! library.

use std::collections::HashMap;

trait Shape {
    fn area(&self) -> f64;
}

struct Square(f64);

impl Shape for Square {
    fn area(&self) -> f64 {
        self.0 * self.0
    }
}

mod store {
    use std::hash::Hash;

    #[derive(Default)]
    pub struct Cache<K, V> {
        pub entries: super::HashMap<K, Vec<V>>,
    }

    impl<K: Eq + Hash, V> Cache<K, V> {
        #[inline(never)]
        pub fn push(&mut self, key: K, value: V) {
            self.entries.entry(key).or_default().push(value);
        }
    }
}

#[inline(never)]
fn total(shapes: &[Box<dyn Shape>]) -> f64 {
    shapes.iter().map(|shape| shape.area().max(0.5)).sum()
}

fn main() {
    let mut cache = store::Cache::<String, usize> { entries: HashMap::new() };
    let mut shapes: Vec<Box<dyn Shape>> = Vec::new();
    for (index, argument) in std::env::args().enumerate() {
        shapes.push(Box::new(Square(argument.len() as f64)));
        cache.push(argument, index);
    }
    println!("{} {}", total(&shapes), cache.entries.len());
}
