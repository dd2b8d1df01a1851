//! A leak of reference cycles: parents and children refer to each other by `Rc`, so no reference count ever
//! becomes zero.
//!
//#Expect: Leak in make_family
//#Expect: nothing else
#[path = "common/pace.rs"]
mod pace;

use std::cell::RefCell;
use std::hint::black_box;
use std::rc::Rc;

struct Person {
    relatives: RefCell<Option<Rc<Person>>>,
    _name: [u8; 64],
}

#[inline(never)]
fn make_family() {
    let parent = Rc::new(Person { relatives: RefCell::new(None), _name: [0; 64] });
    let child = Rc::new(Person { relatives: RefCell::new(Some(Rc::clone(&parent))), _name: [1; 64] });
    *parent.relatives.borrow_mut() = Some(child);
    black_box(&parent);
}

fn main() {
    let mut pace = pace::Pace::new(5.0, 150);
    while pace.wait() {
        make_family();
    }
}
