//! A global allocator that wraps another allocator and counts its calls.
#![allow(unsafe_code)] // implements `GlobalAlloc`

use crate::counting;
use core::alloc::{GlobalAlloc, Layout};

/// Wraps the global allocator `A`, so that edleak-record can count the calls of `A`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted<A>(A);

impl<A> Counted<A> {
    /// Creates an allocator that passes all calls on to `allocator`.
    pub const fn new(allocator: A) -> Counted<A> {
        Counted(allocator)
    }

    /// The wrapped allocator. edleak does not count calls that a program makes directly to the wrapped
    /// allocator.
    pub const fn inner(&self) -> &A {
        &self.0
    }
}

/// Minimum distance in bytes between the starts of two allocations in a process that counts allocations. The
/// side table has one entry for each 32 bytes of addresses.
const SPACING: usize = 32;

/// The layout to request from the wrapped allocator, for an allocation with `layout` in a process that counts
/// allocations.
#[inline(always)]
fn spaced(layout: Layout) -> Layout {
    // SAFETY: the alignment comes from a valid layout. A size of 32, rounded up to any alignment that a
    // layout may have, is at most `isize::MAX`.
    unsafe { Layout::from_size_align_unchecked(layout.size().max(SPACING), layout.align()) }
}

// SAFETY: each method makes exactly one call of the wrapped allocator and returns the result of this call.
// The wrapped allocator gets the same layout for the allocation and for its free, because `spaced` computes
// the same layout each time, and `is_plain` always returns the same value after its first call.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counted<A> {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if counting::is_made_plain() {
            // SAFETY: the caller keeps the contract of `alloc`.
            return unsafe { self.0.alloc(layout) };
        }
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { self.alloc_counted(layout) }
    }

    #[inline(always)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if counting::is_made_plain() {
            // SAFETY: the caller keeps the contract of `alloc_zeroed`.
            return unsafe { self.0.alloc_zeroed(layout) };
        }
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { self.alloc_zeroed_counted(layout) }
    }

    #[inline(always)]
    unsafe fn dealloc(&self, allocation: *mut u8, layout: Layout) {
        if counting::is_made_plain() {
            // SAFETY: the caller keeps the contract of `dealloc`.
            return unsafe { self.0.dealloc(allocation, layout) };
        }
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { self.dealloc_counted(allocation, layout) }
    }

    #[inline(always)]
    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if counting::is_made_plain() {
            // SAFETY: the caller keeps the contract of `realloc`.
            return unsafe { self.0.realloc(old, layout, size) };
        }
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { self.realloc_counted(old, layout, size) }
    }
}

/// The methods of the allocator in a process that may count allocations. They are separate from the methods
/// of `GlobalAlloc`, so that those short methods need no stack frame.
impl<A: GlobalAlloc> Counted<A> {
    #[inline(never)]
    unsafe fn alloc_counted(&self, layout: Layout) -> *mut u8 {
        if counting::is_plain() {
            // SAFETY: the caller keeps the contract of `alloc`.
            return unsafe { self.0.alloc(layout) };
        }
        // SAFETY: the caller keeps the contract of `alloc`.
        let allocation = unsafe { self.0.alloc(spaced(layout)) };
        // SAFETY: the allocator has just returned the allocation.
        unsafe { counting::allocated(allocation, layout.size()) }
    }

    #[inline(never)]
    unsafe fn alloc_zeroed_counted(&self, layout: Layout) -> *mut u8 {
        if counting::is_plain() {
            // SAFETY: the caller keeps the contract of `alloc_zeroed`.
            return unsafe { self.0.alloc_zeroed(layout) };
        }
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        let allocation = unsafe { self.0.alloc_zeroed(spaced(layout)) };
        // SAFETY: the allocator has just returned the allocation.
        unsafe { counting::allocated(allocation, layout.size()) }
    }

    #[inline(never)]
    unsafe fn dealloc_counted(&self, allocation: *mut u8, layout: Layout) {
        if counting::is_plain() {
            // SAFETY: the caller keeps the contract of `dealloc`.
            return unsafe { self.0.dealloc(allocation, layout) };
        }
        // Count the free first: after the allocator's `dealloc`, another thread may get the same address.
        // SAFETY: the caller frees the allocation.
        unsafe { counting::freed(allocation) };
        // SAFETY: the caller keeps the contract of `dealloc`, and `alloc` requested the same layout.
        unsafe { self.0.dealloc(allocation, spaced(layout)) };
    }

    #[inline(never)]
    unsafe fn realloc_counted(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if counting::is_plain() {
            // SAFETY: the caller keeps the contract of `realloc`.
            return unsafe { self.0.realloc(old, layout, size) };
        }
        // SAFETY: the caller calls `realloc`, which moves or frees `old`.
        let taken = unsafe { counting::take(old) };
        // SAFETY: the caller keeps the contract of `realloc`, and `alloc` requested the same layout.
        let new = unsafe { self.0.realloc(old, spaced(layout), size.max(SPACING)) };
        // SAFETY: `taken` is the result of `take(old)`, and the allocator has returned `new` for `old`.
        unsafe { counting::moved(old, taken, new, size) };
        // SAFETY: the allocator has just returned the allocation.
        unsafe { counting::allocated(new, size) }
    }
}
