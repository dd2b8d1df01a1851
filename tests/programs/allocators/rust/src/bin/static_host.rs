//! A program that counts its own allocations with edleak-alloc. The first argument names what the program
//! does.

use edleak_alloc::Counted;
use std::alloc::{Layout, System, alloc};
use std::hint::black_box;
use std::io::{Read, Write};

#[global_allocator]
static ALLOCATOR: Counted<System> = Counted::new(System);

unsafe extern "C" {
    fn fork() -> i32;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn site_parent() {
    black_box(unsafe { alloc(Layout::new::<[u8; 100]>()) });
    black_box(1);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn site_child() {
    black_box(unsafe { alloc(Layout::new::<[u8; 300]>()) });
    black_box(2);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn site_outer(times: usize) {
    (0..times).for_each(|_| site_inner());
    black_box(3);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn site_inner() {
    black_box(unsafe { alloc(Layout::new::<[u8; 24]>()) });
    black_box(4);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn site_pool(chunk: &mut Vec<u8>, index: usize) {
    let chunk = chunk.as_mut_slice();
    let object = &raw const chunk[index * 64];
    edleak_annotate::pool_alloc(chunk, object, 64);
    black_box(5);
}

fn fork_and_allocate() {
    (0..1000).for_each(|_| site_parent());
    let pid = unsafe { fork() };
    if pid == 0 {
        (0..2000).for_each(|_| site_child());
        return;
    }
    let mut status = 0;
    unsafe { waitpid(pid, &mut status, 0) };
    assert_eq!(status, 0, "the child has ended well");
    (0..1000).for_each(|_| site_parent());
}

fn use_marks_and_pools() {
    let mut chunk = vec![0u8; 64 * 100];
    edleak_annotate::pool_name(chunk.as_slice(), c"requests");
    for index in 0..100 {
        edleak_annotate::mark(c"request");
        site_pool(&mut chunk, index);
    }
    black_box(&chunk);
}

/// After each byte of standard input, allocates once and prints an answer.
fn obey() {
    let mut input = std::io::stdin().lock();
    let mut line = [0; 1];
    while input.read(&mut line).expect("standard input can be read") == 1 {
        (0..500).for_each(|_| site_parent());
        print!("+");
        std::io::stdout().flush().expect("standard output can be written");
    }
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("fork") => fork_and_allocate(),
        Some("stacks") => site_outer(700),
        Some("marks") => use_marks_and_pools(),
        Some("obey") => obey(),
        _ => {}
    }
}
