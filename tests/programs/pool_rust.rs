//! `pool_rust ROUNDS [wait]`: an arena in Rust that reports its objects to edleak. The program prints its own
//! counts.
//!
//! The functions of the arena are inlined, so the objects are counted at the callers of the arena.

#[path = "../../recorder/annotate/src/lib.rs"]
#[allow(dead_code, unused_attributes)]
mod edleak_annotate;

struct Arena {
    bytes: Vec<u8>,
    used: usize,
}

impl Arena {
    fn new(name: &std::ffi::CStr) -> Box<Arena> {
        let arena = Box::new(Arena { bytes: vec![0; 1 << 20], used: 0 });
        edleak_annotate::pool_name(&*arena, name);
        arena
    }

    #[inline(always)]
    fn alloc(&mut self, size: usize) -> *mut u8 {
        let object = self.bytes[self.used..][..size].as_mut_ptr();
        self.used += size;
        edleak_annotate::pool_alloc(self, object, size);
        object
    }

    #[inline(never)]
    fn alloc_apart(&mut self, size: usize) -> *mut u8 {
        let object = self.bytes[self.used..][..size].as_mut_ptr();
        self.used += size;
        edleak_annotate::pool_alloc(self, object, size);
        object
    }

    fn free(&mut self, object: *mut u8) {
        edleak_annotate::pool_free(self, object);
    }

    fn reset(&mut self) {
        edleak_annotate::pool_reset(self);
        self.used = 0;
    }
}

#[inline(never)]
fn site_kept(arena: &mut Arena) -> *mut u8 {
    std::hint::black_box(arena.alloc(24))
}

#[inline(never)]
fn site_reset(arena: &mut Arena) -> *mut u8 {
    std::hint::black_box(arena.alloc(100))
}

#[inline(never)]
fn site_apart(arena: &mut Arena) -> *mut u8 {
    std::hint::black_box(arena.alloc_apart(7))
}

fn main() {
    let rounds: usize = std::env::args().nth(1).map_or(1000, |text| text.parse().expect("a number"));
    if std::env::args().nth(2).is_some() {
        // A test attaches to the program after the test has read the line `ready`.
        println!("ready");
        std::io::stdin().read_line(&mut String::new()).expect("a line");
        drop(std::hint::black_box(Box::new([0u8; 24])));
    }
    let (mut kept, mut request) = (Arena::new(c"kept"), Arena::new(c"requests"));
    for round in 0..rounds {
        edleak_annotate::mark(c"round");
        for _ in 0..5 {
            site_reset(&mut request);
        }
        site_apart(&mut request);
        request.reset();
        let object = site_kept(&mut kept);
        if round % 2 == 0 {
            kept.free(object);
        }
    }
    let line = |function: &str, allocs: usize, frees: usize, size: usize| {
        println!(
            "{{\"function\":\"{function}\",\"allocs\":{allocs},\"allocated_bytes\":{},\
             \"frees\":{frees},\"freed_bytes\":{}}}",
            allocs * size,
            frees * size
        );
    };
    line("site_kept", rounds, rounds.div_ceil(2), 24);
    line("site_reset", rounds * 5, rounds * 5, 100);
    line("site_apart", rounds, rounds, 7);
}
