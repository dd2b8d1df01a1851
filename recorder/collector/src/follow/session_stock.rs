//! The stock of sessions: the control page, and unused sessions for the programs that start next. A session
//! is the memory that a program shares with the collector. After programs have claimed sessions, the
//! collector adds new sessions.

use crate::sys::descriptor_keeper::{self, DescriptorKeeper, UserAndGroup};
use crate::sys::shm::{ControlPage, Session};
use edleak_session::control::{self, Slot};
use edleak_session::layout::MAX_SHARDS;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Longest time that a target waits, once at its start, for the wrapper rules and detours of its modules. The
/// collector needs a few milliseconds to prepare the rules and detours. On a busy machine, the preparation
/// takes longer than a few milliseconds, but a busy machine delays the start of the program anyway. Without
/// the wrapper rules, edleak would count the program's first allocations at the wrong callers.
pub(crate) const RULES_TIMEOUT: Duration = Duration::from_millis(250);
/// Longest time that a target waits at its start, if the program has its own allocator, or if sites are
/// watched from the start. Without detours, edleak counts no allocation of the program's own allocator.
/// Without unwind rules, the first allocations of a watched site have no stacks.
pub(crate) const LONG_RULES_TIMEOUT: Duration = Duration::from_secs(2);
/// Number of slots of the control page in which the collector keeps a free session, if it records no child
/// processes. An image takes one session when it starts. The collector fills empty slots several times a
/// second.
const STOCK: usize = 8;
/// Number of slots in which the collector puts a session before the target starts. While the target starts,
/// the collector puts sessions into the remaining slots.
const FIRST_STOCK: usize = 2;
/// Number of slots in which the collector keeps a free session if it also records child processes.
const STOCK_WITH_CHILDREN: usize = control::SLOTS;

/// Maximum number of sessions of ended children that the collector keeps for later children, outside the
/// slots. Each session that the collector keeps still has the memory pages that the ended child used, at most
/// 512 KiB.
const MOST_SPARE: usize = 8;

/// The stock of sessions for the images of one run.
pub(crate) struct SessionStock {
    page: Arc<ControlPage>,
    sessions: Vec<Option<Session>>,
    /// Sessions of ended children, reset so that later children can claim these sessions.
    spare: Vec<Session>,
    shards: usize,
    /// The user and the group of the target, if the target cannot open the collector's descriptors.
    owner: Option<UserAndGroup>,
    keeper: Option<DescriptorKeeper>,
    rules_timeout_us: u32,
}

impl SessionStock {
    /// Creates the control page and the first sessions.
    pub(crate) fn create(children: bool, rules_timeout: Duration) -> io::Result<SessionStock> {
        SessionStock::create_with(children, rules_timeout, None, None)
    }

    /// Creates the stock for a process that already runs. If the process `pid` cannot open the collector's
    /// descriptors, the collector starts a helper process that makes these descriptors available (see
    /// [`DescriptorKeeper`]).
    pub(crate) fn create_for(pid: u32, children: bool, rules_timeout: Duration) -> io::Result<SessionStock> {
        if !descriptor_keeper::is_needed_for(pid) {
            return SessionStock::create(children, rules_timeout);
        }
        let owner = UserAndGroup::of(pid).ok_or(io::ErrorKind::NotFound)?;
        let keeper = DescriptorKeeper::start(pid, owner)?;
        SessionStock::create_with(children, rules_timeout, Some(owner), Some(keeper))
    }

    fn create_with(
        children: bool,
        rules_timeout: Duration,
        owner: Option<UserAndGroup>,
        keeper: Option<DescriptorKeeper>,
    ) -> io::Result<SessionStock> {
        let first = if children { STOCK_WITH_CHILDREN } else { FIRST_STOCK };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let sessions = if children { STOCK_WITH_CHILDREN } else { STOCK };
        let mut stock = SessionStock {
            page: Arc::new(ControlPage::create(children)?),
            sessions: (0..sessions).map(|_| None).collect(),
            spare: Vec::new(),
            // A session has more shards (sets of counters) than threads can run at the same time, so that two
            // threads seldom share a shard. The number of shards has an upper limit, because each shard costs
            // address space.
            rules_timeout_us: u32::try_from(rules_timeout.as_micros()).unwrap_or(u32::MAX),
            shards: (8 * cores).clamp(16, MAX_SHARDS),
            owner,
            keeper,
        };
        owner.map_or(Ok(()), |owner| stock.page.give_to(owner))?;
        stock.refill(first)?;
        Ok(stock)
    }

    /// The page on which images claim sessions.
    pub(crate) fn page(&self) -> &Arc<ControlPage> {
        &self.page
    }

    /// The path through which a target finds the control page.
    pub(crate) fn address(&self) -> String {
        match &self.keeper {
            Some(keeper) => self.page.address_through(keeper.pid_there),
            None => self.page.address(),
        }
    }

    /// Stores the PID of the process to record. Call this function before the process `pid` executes its
    /// program.
    pub(crate) fn set_root(&self, pid: u32) {
        self.page.get().root_pid.store(pid, Ordering::Release);
    }

    /// Stores the domains (kinds of memory, such as mapped memory) to record besides the heap. Call this
    /// function before the first target starts.
    pub(crate) fn set_domains(&self, domains: u32) {
        self.page.get().domains.store(domains, Ordering::Release);
    }

    /// Number of images (programs in a process) that found no free session, so they have no recording.
    pub(crate) fn missed(&self) -> u64 {
        u64::from(self.page.get().missed.load(Ordering::Relaxed))
    }

    /// Number of images of child processes that the user did not ask to record.
    pub(crate) fn others(&self) -> u64 {
        u64::from(self.page.get().others.load(Ordering::Relaxed))
    }

    /// The sessions that images have claimed since the last call, in slot order. The slot of each returned
    /// session stays empty until the collector calls [`SessionStock::fill`].
    pub(crate) fn claimed(&mut self) -> io::Result<Vec<Session>> {
        let mut claimed = Vec::new();
        for (slot, session) in self.page.get().slots.iter().zip(&mut self.sessions) {
            if slot.take_claimed() {
                claimed.extend(session.take());
            }
        }
        Ok(claimed)
    }

    /// Keeps the session of an ended child for a later child, if no other process still has this session open
    /// or mapped. For a new session, the collector would have to create a file and a mapping, and the child
    /// would need new memory pages.
    pub(crate) fn take_back(&mut self, mut session: Session) {
        if self.owner.is_none() && self.spare.len() < MOST_SPARE && session.renew(self.rules_timeout_us) {
            self.spare.push(session);
        }
    }

    /// Fills every empty slot.
    pub(crate) fn fill(&mut self) -> io::Result<()> {
        self.refill(STOCK_WITH_CHILDREN)
    }

    fn refill(&mut self, places: usize) -> io::Result<()> {
        let slots: &[Slot] = &self.page.get().slots;
        for (slot, place) in slots.iter().zip(&mut self.sessions).take(places) {
            if place.is_none() {
                let session = match self.spare.pop() {
                    Some(session) => session,
                    None => Session::create(self.shards, self.rules_timeout_us)?,
                };
                let nonce = self.page.get().nonce.load(Ordering::Relaxed);
                session.header().nonce.store(nonce, Ordering::Relaxed);
                self.owner.map_or(Ok(()), |owner| session.give_to(owner))?;
                slot.put(session.fd() as u32);
                *place = Some(session);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_session_is_claimed_once_and_its_place_refilled() {
        let mut stock = SessionStock::create(false, RULES_TIMEOUT).expect("memory files can be made");
        let mut seen = Vec::new();
        for _ in 0..3 {
            stock.fill().expect("memory files can be made");
            let fds: Vec<u32> =
                (0..STOCK).map(|_| stock.page.get().claim().expect("the stock is full").fd).collect();
            assert_eq!(stock.page.get().claim(), None);
            let sessions = stock.claimed().expect("memory files can be made");
            assert_eq!(sessions.iter().map(|session| session.fd() as u32).collect::<Vec<_>>(), fds);
            seen.push(sessions);
        }
        assert_eq!(stock.missed(), 3);
    }

    #[test]
    fn session_of_an_ended_child_is_used_again_and_reads_as_empty() {
        let mut stock = SessionStock::create(true, RULES_TIMEOUT).expect("memory files can be made");
        let fd = stock.page.get().claim().expect("the stock is full").fd;
        let session = stock.claimed().expect("it was claimed").remove(0);
        let serial = session.header().serial.load(Ordering::Relaxed);
        session.header().pid.store(7, Ordering::Relaxed);
        session.header().next_site.store(9, Ordering::Relaxed);
        session.infos()[5].address.store(0x1234, Ordering::Relaxed);
        session.slots()[edleak_session::site::SLOTS - 1].key.store(0x5678, Ordering::Relaxed);
        // A child that the ended child has forked may still have this session open.
        let path = format!("/proc/self/fd/{fd}");
        let other = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("it is our own");
        assert!(!{ session }.renew(0));
        drop(other);

        let fd = stock.page.get().claim().expect("the stock is full").fd;
        let session = stock.claimed().expect("it was claimed").remove(0);
        session.infos()[5].address.store(0x1234, Ordering::Relaxed);
        session.slots()[edleak_session::site::SLOTS - 1].key.store(0x5678, Ordering::Relaxed);
        stock.take_back(session);
        stock.fill().expect("memory files can be made");
        let again = stock.sessions.iter().flatten().find(|session| session.fd() as u32 == fd);
        let again = again.expect("the session is free again");
        assert_eq!(again.infos()[5].address.load(Ordering::Relaxed), 0);
        assert_eq!(again.slots()[edleak_session::site::SLOTS - 1].key.load(Ordering::Relaxed), 0);
        assert_eq!(again.header().next_site.load(Ordering::Relaxed), edleak_session::site::FIRST);
        assert!(again.header().serial.load(Ordering::Relaxed) > serial);
    }

    #[test]
    fn a_fresh_session_reads_as_empty() {
        let session = Session::create(16, 0).expect("memory files can be made");
        assert_eq!(session.header().shards.load(Ordering::Relaxed), 16);
        assert!(session.maps().is_empty());
        assert!(session.shards().iter().all(|shard| shard.owner.load(Ordering::Relaxed) == 0));
    }
}
