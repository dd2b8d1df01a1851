//! Marks and pools: a program tells edleak-record when it begins another iteration of its work, for example a
//! request, and which objects a memory pool hands out.
//!
//! The crate uses no other crate and no libc. In a process without edleak, the functions of this crate do
//! nothing, and each call costs 5 instructions. In a recorded process, a call of a function of this crate
//! allocates no memory, takes no lock and does not wait.
//!
//! ```
//! struct Arena {
//!     bytes: Vec<u8>,
//!     used: usize,
//! }
//!
//! impl Arena {
//!     // Inlined, so that edleak counts the object at the caller.
//!     #[inline(always)]
//!     fn alloc(&mut self, size: usize) -> *mut u8 {
//!         let object = self.bytes[self.used..][..size].as_mut_ptr();
//!         self.used += size;
//!         edleak_annotate::pool_alloc(self, object, size);
//!         object
//!     }
//!
//!     fn reset(&mut self) {
//!         edleak_annotate::pool_reset(self);
//!         self.used = 0;
//!     }
//! }
//!
//! let mut arena = Arena { bytes: vec![0; 1024], used: 0 };
//! edleak_annotate::pool_name(&arena, c"requests");
//! for _ in 0..10 {
//!     edleak_annotate::mark(c"request");
//!     arena.alloc(100);
//!     arena.reset();
//! }
//! ```
//!
//! # The caller of a pool
//!
//! A Rust function cannot get the return address of its caller. So edleak counts an object at the function
//! into which the compiler inlined [`pool_alloc`]. If the functions of the pool are `#[inline(always)]`,
//! edleak counts an object at the function that calls the pool, and the debug information names both this
//! function and the pool's function. If the compiler does not inline a function of the pool, name this
//! function with `edleak-record --wrapper 'Arena::alloc*'`. edleak then skips the frame of this function.
#![no_std]
#![deny(unsafe_code)]

use core::ffi::CStr;

/// Calls of the functions of libedleak_preload.so.
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64"))]
#[allow(unsafe_code)]
#[allow(named_asm_labels, reason = "`.ifndef` defines the label once in each file of machine code")]
mod library {
    use core::arch::asm;
    use core::ffi::CStr;
    use core::mem::transmute;

    /// Defines memory of 8 bytes for each of the two addresses of `edleak_set_mark` and `edleak_note_pool`,
    /// and an ELF note that contains the position of this memory. If edleak-record loads its library into the
    /// running program, it writes the two addresses into this memory while all threads are stopped. Each
    /// object file contains this definition once. The linker merges the definitions of all object files of an
    /// executable or a shared library into one.
    macro_rules! with_words {
        ($($line:literal),*) => {
            concat!(
                ".ifndef edleak_late
                .pushsection .bss.edleak_late,\"aw\",@nobits
                .weak edleak_late
                .hidden edleak_late
                .type edleak_late,@object
                .size edleak_late,16
                .p2align 3
                edleak_late:
                .zero 16
                .popsection
                .pushsection .note.edleak,\"a\",@note
                .p2align 2
                .long 7, 4, 3
                .asciz \"edleak\"
                .p2align 2
                .long edleak_late - .
                .popsection
                .endif\n",
                $($line, "\n"),*
            )
        };
    }

    type Mark = unsafe extern "C" fn(*const core::ffi::c_char);
    type Note = unsafe extern "C" fn(u32, usize, usize, usize, usize);

    #[inline(always)]
    pub(super) fn mark(name: &CStr) {
        let address: usize;
        // SAFETY: the instructions load the address of a weak symbol from the global offset table. If this
        // address is null, the instructions load the 8 bytes at `edleak_late` instead, where edleak-record
        // may have stored the address of `edleak_set_mark`.
        unsafe {
            asm!(
                with_words!(
                    ".weak edleak_set_mark",
                    "mov {0}, qword ptr [rip + edleak_set_mark@GOTPCREL]",
                    "test {0}, {0}",
                    "cmove {0}, qword ptr [rip + edleak_late]"
                ),
                out(reg) address,
                options(nostack, readonly),
            );
        }
        if address != 0 {
            // SAFETY: the library defines the symbol as a function of this type.
            let mark: Mark = unsafe { transmute(address) };
            // SAFETY: the name is a C string.
            unsafe { mark(name.as_ptr()) };
        }
    }

    #[inline(always)]
    pub(super) fn note(operation: u32, pool: usize, address: usize, size: usize) {
        let note: usize;
        // SAFETY: the instructions load the address of a weak symbol from the global offset table. If this
        // address is null, the instructions load the 8 bytes at `edleak_late + 8` instead, where
        // edleak-record may have stored the address of `edleak_note_pool`.
        unsafe {
            asm!(
                with_words!(
                    ".weak edleak_note_pool",
                    "mov {0}, qword ptr [rip + edleak_note_pool@GOTPCREL]",
                    "test {0}, {0}",
                    "cmove {0}, qword ptr [rip + edleak_late + 8]"
                ),
                out(reg) note,
                options(nostack, readonly),
            );
        }
        if note != 0 {
            // SAFETY: the library defines the symbol as a function of this type.
            let note: Note = unsafe { transmute(note) };
            // SAFETY: `note` accepts any numbers. `note` reads memory at `address` only if the operation
            // gives a pool a name; then `address` is the address of a C string.
            unsafe { note(operation, pool, address, size, 0) };
            // SAFETY: the assembly contains no instruction. It stands after the call of `note` so that the
            // compiler does not turn this call into a jump: a jump leaves no return address, by which edleak
            // finds the caller.
            unsafe { asm!("", options(nostack, preserves_flags)) };
        }
    }
}

/// edleak records only programs on x86-64 Linux, so these functions do nothing on other systems.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64")))]
mod library {
    use core::ffi::CStr;

    #[inline(always)]
    pub(super) fn mark(_: &CStr) {}

    #[inline(always)]
    pub(super) fn note(_: u32, _: usize, _: usize, _: usize) {}
}

/// Sets a mark: stores this instant and the name in the trace. `edleak-analyze --per-mark NAME` judges the
/// memory that each iteration leaves behind.
#[inline(always)]
pub fn mark(name: &CStr) {
    library::mark(name);
}

/// Tells edleak that `pool` has handed out an object. The address of `pool` names the pool.
#[inline(always)]
pub fn pool_alloc<P: ?Sized, T: ?Sized>(pool: *const P, object: *const T, size: usize) {
    if !object.is_null() {
        library::note(1, pool.addr(), object.addr(), size);
    }
}

/// Tells edleak that `pool` is about to take an object back. Call this function before the pool can hand the
/// object out to another thread.
#[inline(always)]
pub fn pool_free<P: ?Sized, T: ?Sized>(pool: *const P, object: *const T) {
    if !object.is_null() {
        library::note(2, pool.addr(), object.addr(), 0);
    }
}

/// Tells edleak that `pool` is about to take all its objects back, or that the program is about to drop
/// `pool`.
#[inline(always)]
pub fn pool_reset<P: ?Sized>(pool: *const P) {
    library::note(3, pool.addr(), 0, 0);
}

/// Gives `pool` a name. Call this function before `pool` hands out objects. edleak-analyze judges all pools
/// with one name together.
#[inline(always)]
pub fn pool_name<P: ?Sized>(pool: *const P, name: &CStr) {
    library::note(4, pool.addr(), name.as_ptr().expose_provenance(), 0);
}
