//! HOT: the caller cache. The cache has a word of 8 bytes for each caller, with the caller's site or the rule
//! that skips the caller's frame.
//!
//! A return address has 48 bits. The lower 16 bits of the address are the index of one of [`CALLERS`]
//! words, and the upper 32 bits of the address are a part of this word. So a word and its index together
//! belong to exactly one return address. One comparison shows that the word belongs to the caller's address
//! and that the hook only has to count the allocation. The lower bits of an address need no hash: callers
//! lie everywhere in the code, and neighbouring callers get different words of one cache line.
//!
//! A word of the cache is the xor of two values. One value encodes the site or the unwind rule of a return
//! address. The other value is the return address itself, rotated so that its upper 32 bits are at the top.
//! The table shows which values encode a site, and which values encode a rule:
//!
//! | from          | to            | meaning                                                            |
//! |---------------|---------------|--------------------------------------------------------------------|
//! | `0x0000_0020` | `0x001f_ffe0` | count at this [`SiteOffset`]                                       |
//! | `0x0020_0008` | `0x0020_fff8` | a [`Rule`]: CFA = sp + lower 16 bits; fp is still the caller's     |
//! | `0x0020_ffff` |               | the rule of a frame pointer: [`FRAME_POINTER_RULE`]                |
//! | `0x0021_0008` | `0x101f_fff8` | CFA = sp + lower 16 bits; the caller's fp lies N words below it,   |
//! |               |               | N = bits 16..32 − `0x20`                                           |
//! | `0x1020_0008` | `0x201f_fff8` | CFA = fp + lower 16 bits; the caller's fp lies N words below it,   |
//! |               |               | N = bits 16..32 − `0x1020`; if N is 0, fp is still the caller's    |
//! | anything else |               | the word belongs to another address, or is empty                   |
//!
//! An empty word of the caller cache is 0. The xor of an address with an empty word gives 2³² or more, which
//! encodes neither a site nor a rule. For two kinds of addresses, the xor with an empty word may be less than
//! 2³². The first kind is addresses of 2⁴⁸ or more: a program has code at such an address only on a kernel
//! with five-level page tables, and only if it asks for the address. The second kind is addresses below
//! [`LOWEST`], where no code lies. For an address below [`LOWEST`], the xor with an empty word is a multiple
//! of 2¹⁶: it may equal a value that encodes a site, but never a value that encodes a rule.
//!
//! The words are a cache of the site table ([`crate::site`]). The site table is complete: if a caller has
//! no word, the hook searches the site table. A thread that has changed the site or the action of an
//! address in the site table removes the word of this address from the cache. A thread that has stored a
//! word in the cache reads the site table again. The thread that changes the site table executes a full
//! memory barrier between this change and its read of the cache. The thread that stores a word executes a
//! full memory barrier between its store and its read of the site table. So if both threads run at the same
//! time, at least one of them sees the change of the other thread.

use crate::atomic::{AtomicU64, Ordering, fence};
use crate::counters::SiteOffset;
use crate::rule::{FRAME_POINTER_RULE, Kind, Rule};
use crate::site::{Action, MAX_SITES, SiteSlot};

const PLACE_BITS: u32 = 16;
/// Number of words in the caller cache; together, the words take 512 KiB. A program touches only those pages
/// of the cache that contain the words of its callers.
pub const CALLERS: usize = 1 << PLACE_BITS;
/// No code lies below the address 65,536 (`vm.mmap_min_addr`), so a smaller number on the stack is not a
/// return address. The hook treats a value from the stack as a return address only if the value is at least
/// `LOWEST`.
pub const LOWEST: usize = 1 << PLACE_BITS;

const ADDRESS_BITS: u32 = 48;
/// Number of bits by which a return address is rotated to the left before the xor with its word of the
/// cache.
pub const TURN: u32 = 64 - ADDRESS_BITS;
/// Number of the lower bits of an encoded rule that hold the offset of the CFA in bytes; this offset is a
/// multiple of 8.
pub const CFA_BITS: u32 = 16;
/// The value that encodes the rule of a function that keeps a frame pointer. A value less than `FRAME`
/// encodes a site, or a rule that computes the CFA from sp and leaves fp unchanged. A value from `FRAME` +
/// 1 to [`LAST`] encodes a rule that restores fp from the stack or computes the CFA from fp.
pub const FRAME: u64 = SiteOffset::END as u64 | ((1 << CFA_BITS) - 1);
const _: () = assert!(SiteOffset::END.is_multiple_of(1 << CFA_BITS));
const MAX_FP_WORDS: u64 = 4095;
/// A rule that computes the CFA from sp and restores fp from the stack is encoded as a number. This number
/// shifted right by [`CFA_BITS`] bits is greater than `SAVED_FROM`.
pub const SAVED_FROM: u64 = FRAME >> CFA_BITS;
/// The highest value that encodes a rule that computes the CFA from sp and restores fp from the stack.
pub const LAST_SAVED: u64 = ((SAVED_FROM + MAX_FP_WORDS + 1) << CFA_BITS) - 1;
/// The lowest value of the upper bits in rules that compute the CFA from fp.
pub const OTHERS_FROM: u64 = (LAST_SAVED + 1) >> CFA_BITS;
/// The largest value that encodes a site or a rule.
pub const LAST: u64 = ((OTHERS_FROM + MAX_FP_WORDS + 1) << CFA_BITS) - 1;
const _: () = assert!(LAST < 1 << (TURN + PLACE_BITS) && LAST <= i32::MAX as u64);

/// The index of an address's word in the caller cache.
#[inline(always)]
pub const fn place(address: u64) -> usize {
    address as usize % CALLERS
}

/// The site or the unwind rule that a word of the caller cache holds for its caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Caller(u64);

impl Caller {
    /// Decodes the word that the cache holds at the index of `address`.
    #[inline(always)]
    pub const fn by(word: u64, address: u64) -> Caller {
        Caller(address.rotate_left(TURN) ^ word)
    }

    /// The word that represents this site or rule in the cache, at the index of `address`.
    const fn word(self, address: u64) -> u64 {
        address.rotate_left(TURN) ^ self.0
    }

    /// The caller's site, if the hook only has to count the allocation.
    #[inline(always)]
    pub const fn site(self) -> Option<SiteOffset> {
        SiteOffset::from_bytes(self.0 as usize)
    }

    /// The rule (of kind `Sp` or `Fp`) that skips the caller's frame. `None`: the caller is not a wrapper, or
    /// the word is empty or belongs to another caller.
    #[inline(always)]
    pub const fn rule(self) -> Option<Rule> {
        let (upper, cfa_offset) = (self.0 >> CFA_BITS, (self.0 % (1 << CFA_BITS)) as i64);
        if self.site().is_some() || self.0 > LAST || cfa_offset == 0 {
            return None;
        }
        if self.0 == FRAME {
            return Some(FRAME_POINTER_RULE);
        }
        let (kind, from) =
            if self.0 <= LAST_SAVED { (Kind::Sp, SAVED_FROM) } else { (Kind::Fp, OTHERS_FROM) };
        let fp_offset = (upper - from) as i64 * 8;
        Rule::pack(kind, cfa_offset, if fp_offset > 0 { Some(fp_offset) } else { None })
    }

    /// Encodes a site and its action; `None`: a word of the cache cannot express this action.
    fn of(id: u32, action: Action) -> Option<Caller> {
        if id == 0 || id as usize >= MAX_SITES {
            return None;
        }
        if action == Action::COUNT {
            return Some(Caller(SiteOffset::of(id).bytes() as u64));
        }
        let rule = action.as_step()?;
        let (cfa_offset, fp_words) = (rule.cfa_offset() as u64, rule.fp_offset() as u64 / 8);
        // When the hook skips frames with rules of the cache, each step must move up the stack. A step with
        // a CFA offset of 0 would not move up, so the cache stores no rule with this offset.
        if cfa_offset == 0 || cfa_offset >> CFA_BITS != 0 || fp_words > MAX_FP_WORDS {
            return None;
        }
        Some(Caller(match rule.kind() {
            Kind::Sp => (SAVED_FROM + fp_words) << CFA_BITS | cfa_offset,
            _ if rule == FRAME_POINTER_RULE => FRAME,
            _ => (OTHERS_FROM + fp_words) << CFA_BITS | cfa_offset,
        }))
    }
}

/// Copies the site, or the unwind rule, of an address from the site table (`slot`) into the caller cache. If
/// the word at the index of this address belongs to another address, the function replaces the word only if
/// `takes_over` returns true.
pub fn publish(cache: &[AtomicU64], address: u64, slot: &SiteSlot, takes_over: impl FnOnce() -> bool) {
    let meaning = slot.meaning.load(Ordering::Acquire);
    let Some(caller) = Caller::of(meaning as u32, Action((meaning >> 32) as u32)) else { return };
    if address >> ADDRESS_BITS != 0 || address < LOWEST as u64 {
        return;
    }
    let Some(place) = cache.get(place(address)) else { return };
    let word = caller.word(address);
    let now = place.load(Ordering::Relaxed);
    if now == word || now != 0 && !is_about(now, address) && !takes_over() {
        return;
    }
    place.store(word, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    if slot.meaning.load(Ordering::Relaxed) != meaning {
        withdraw(cache, address);
    }
}

/// Sets the cache's word of `address` to 0 (empty). Call this function after the site id or the action of
/// `address` in the site table has changed.
pub fn withdraw(cache: &[AtomicU64], address: u64) {
    withdraw_if(cache, address, |_| true);
}

/// Sets the cache's word of `address` to 0 (empty) if `is_wrong` returns true for the site or rule in this
/// word.
pub fn withdraw_if(cache: &[AtomicU64], address: u64, is_wrong: impl FnOnce(Caller) -> bool) {
    fence(Ordering::SeqCst);
    let Some(place) = cache.get(place(address)) else { return };
    let now = place.load(Ordering::Relaxed);
    if is_about(now, address) && is_wrong(Caller::by(now, address)) {
        // The compare-and-exchange fails if another thread has stored a word at this index meanwhile. That
        // thread reads the site table after its store, so it removes its word itself if the word is wrong.
        let _ = place.compare_exchange(now, 0, Ordering::SeqCst, Ordering::Relaxed);
    }
}

fn is_about(word: u64, address: u64) -> bool {
    let caller = Caller::by(word, address);
    caller.site().is_some() || caller.rule().is_some()
}

#[cfg(all(test, not(edleak_loom)))]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn empty_cache() -> Vec<AtomicU64> {
        (0..CALLERS).map(|_| AtomicU64::new(0)).collect()
    }

    fn slot(address: u64, id: u32, action: Action) -> SiteSlot {
        SiteSlot { key: AtomicU64::new(address), meaning: AtomicU64::new(crate::site::meaning(id, action)) }
    }

    fn known(cache: &[AtomicU64], address: u64) -> Caller {
        Caller::by(cache[place(address)].load(Ordering::Relaxed), address)
    }

    fn site(cache: &[AtomicU64], address: u64) -> Option<u32> {
        known(cache, address).site().map(SiteOffset::id)
    }

    fn addresses() -> impl Iterator<Item = u64> {
        let mut state = 7u64;
        (0..200_000).map(move |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> TURN).max(LOWEST as u64)
        })
    }

    // For each index of the cache: the lowest and the highest address that has this index. A wrong comparison
    // is most likely to fail for the lowest or the highest address: it would treat an empty word as the word
    // of this address.
    fn extremes() -> impl Iterator<Item = u64> {
        (0..CALLERS as u64)
            .flat_map(move |place| [LOWEST as u64 | place, ((1 << ADDRESS_BITS) - CALLERS as u64) | place])
    }

    #[test]
    fn published_word_is_found_only_by_its_address() {
        let cache = empty_cache();
        let rule = Rule::pack(Kind::Sp, 48, Some(16)).expect("fits");
        for (address, id, action) in
            [(0x5555_5555_1234, 2, Action::COUNT), (0x7fff_f7e0_0011, 65_535, Action::COUNT)]
        {
            publish(&cache, address, &slot(address, id, action), || false);
            assert_eq!(known(&cache, address).site().map(SiteOffset::id), Some(id));
            assert_eq!(known(&cache, address).rule(), None);
        }
        let wrapper = 0x7f12_3456_789a;
        publish(&cache, wrapper, &slot(wrapper, 9, Action::step(rule)), || false);
        assert_eq!((known(&cache, wrapper).site(), known(&cache, wrapper).rule()), (None, Some(rule)));
        // The test also looks up all addresses that differ in a single bit from one of three addresses with
        // a word in the cache.
        let near = [0x5555_5555_1234, 0x7fff_f7e0_0011, wrapper]
            .map(|address| (0..ADDRESS_BITS).map(move |bit| address ^ 1 << bit));
        for other in addresses().chain(extremes()).chain(near.into_iter().flatten()) {
            assert_eq!(known(&cache, other).site(), None, "{other:#x}");
            assert_eq!(known(&cache, other).rule(), None, "{other:#x}");
        }
    }

    #[test]
    fn packed_rule_is_unpacked_and_differs_from_a_site() {
        for kind in [Kind::Sp, Kind::Fp] {
            for cfa in [8, 16, 4096, (1 << CFA_BITS) - 8] {
                for fp in [None, Some(8), Some(16), Some(MAX_FP_WORDS as i64 * 8)] {
                    let rule = Rule::pack(kind, cfa, fp).expect("fits");
                    let caller = Caller::of(7, Action::step(rule)).expect("can be said");
                    assert_eq!((caller.rule(), caller.site()), (Some(rule), None));
                    assert_eq!(caller.0 < FRAME, kind == Kind::Sp && fp.is_none());
                    assert_eq!(caller.0 == FRAME, (kind, cfa, fp) == (Kind::Fp, 16, Some(16)));
                }
            }
        }
    }

    #[test]
    fn small_numbers_find_no_rule_in_an_empty_word() {
        assert!((0..LOWEST as u64).all(|number| Caller::by(0, number).rule().is_none()));
    }

    #[test]
    fn two_addresses_differ_in_their_place_or_in_their_word() {
        let mut seen: Vec<(usize, u64)> =
            addresses().map(|address| (place(address), Caller(0).word(address))).collect();
        let mut all: Vec<u64> = addresses().collect();
        seen.sort_unstable();
        seen.dedup();
        all.sort_unstable();
        all.dedup();
        assert_eq!(seen.len(), all.len());
    }

    #[test]
    fn rule_that_does_not_fit_a_word_is_not_published() {
        let cache = empty_cache();
        let address = 0x4000_1234;
        let stays = Action::step(Rule::pack(Kind::Sp, 0, None).expect("fits"));
        let far = Action::step(Rule::pack(Kind::Sp, 1 << CFA_BITS, None).expect("fits"));
        for (id, action) in [
            (0, Action::COUNT),
            (5, Action::WATCH),
            (5, Action::LOADER),
            (5, stays),
            (5, far),
            (1 << 16, Action::COUNT),
        ] {
            publish(&cache, address, &slot(address, id, action), || true);
            assert_eq!((known(&cache, address).site(), known(&cache, address).rule()), (None, None));
        }
        let beyond = address | 1 << ADDRESS_BITS;
        publish(&cache, beyond, &slot(beyond, 5, Action::COUNT), || true);
        assert_eq!(known(&cache, address).site(), None);
    }

    #[test]
    fn a_changed_meaning_is_withdrawn_and_a_neighbour_stays() {
        let cache = empty_cache();
        let address = 0x4000_1234;
        let rival = address + CALLERS as u64;
        publish(&cache, address, &slot(address, 5, Action::COUNT), || false);
        publish(&cache, rival, &slot(rival, 6, Action::COUNT), || false);
        assert_eq!((site(&cache, address), site(&cache, rival)), (Some(5), None));
        withdraw(&cache, rival);
        assert_eq!(site(&cache, address), Some(5));
        publish(&cache, rival, &slot(rival, 6, Action::COUNT), || true);
        assert_eq!((site(&cache, address), site(&cache, rival)), (None, Some(6)));
        withdraw(&cache, rival);
        assert_eq!(known(&cache, rival).site(), None);
    }

    // Tests that a thread notices a change in the site table while it stores a word in the cache. The
    // action of the site changes after the thread has read the action and before the thread stores the
    // word, so `withdraw` finds no word to remove. The test changes the action in `takes_over`, which
    // `publish` calls between the read and the store.
    #[test]
    fn word_withdrawn_before_its_publication_does_not_stay() {
        let cache = empty_cache();
        let address = 0x5555_0000_4321;
        let rival = address + CALLERS as u64;
        publish(&cache, rival, &slot(rival, 6, Action::COUNT), || false);
        let own = slot(address, 5, Action::COUNT);
        let mut is_asked = false;
        publish(&cache, address, &own, || {
            own.set_action(Action::WATCH);
            withdraw(&cache, address);
            is_asked = true;
            true
        });
        assert!(is_asked);
        assert_eq!((known(&cache, address).site(), known(&cache, address).rule()), (None, None));
    }
}
