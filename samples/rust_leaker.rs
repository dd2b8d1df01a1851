//! A small service with two leaks and a cache. The service never removes sessions from its table, and keeps a
//! history of all actions for ever. The service's cache does not leak, because it has a maximum size.
//!
//#Expect: Leak in open_session
//#Expect: Leak in record_history
//#Expect: nothing else
#[path = "common/pace.rs"]
mod pace;

use std::collections::{HashMap, VecDeque};
use std::hint::black_box;

struct Session {
    _state: [u8; 240],
}

#[derive(Default)]
struct Service {
    sessions: HashMap<u64, Box<Session>>,
    history: Vec<Box<[u8; 96]>>,
    cache: HashMap<u32, Vec<u8>>,
    recently_used: VecDeque<u32>,
}

impl Service {
    /// Opens a session for every client and never closes the session.
    #[inline(never)]
    fn open_session(&mut self, client: u64) {
        self.sessions.insert(client, black_box(Box::new(Session { _state: [1; 240] })));
    }

    /// Keeps a record of every action for ever.
    #[inline(never)]
    fn record_history(&mut self) {
        self.history.push(black_box(Box::new([0; 96])));
    }

    /// The cache holds at most 64 pages. To add a page, the program drops the page that it loaded first.
    #[inline(never)]
    fn cache_page(&mut self, page: u32) {
        if self.cache.contains_key(&page) {
            return;
        }
        if self.recently_used.len() == 64 {
            let oldest = self.recently_used.pop_front().expect("64 entries");
            self.cache.remove(&oldest);
        }
        self.recently_used.push_back(page);
        self.cache.insert(page, black_box(vec![0; 2048]));
    }
}

fn main() {
    let mut pace = pace::Pace::new(6.0, 200);
    let mut random = pace::Random::new();
    let mut service = Service::default();
    while pace.wait() {
        service.record_history();
        service.cache_page(random.below(100));
        if pace.tick % 2 == 0 {
            service.open_session(u64::from(pace.tick));
        }
    }
    // Do not drop the tables at the end, because a real service usually ends without dropping its tables.
    std::mem::forget(service);
}
