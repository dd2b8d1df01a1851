//! The code that a thread of the process runs to load the library.
//!
//! The code works at any address. When the thread starts to run the code, rbx holds the address of a
//! [`Block`], and the memory below rsp is free. The code
//!
//! 1. blocks all signals,
//! 2. maps memory for the detours, and a stack for the call,
//! 3. calls `dlopen` on the new stack, and then restores errno,
//! 4. unmaps the stack,
//! 5. makes a system call that has no effect; the collector stops the thread at this call,
//! 6. makes the system call `rt_sigreturn` with the signal frame whose address is in the block.
//!
//! The collector normally stops the thread at step 5 and restores the registers itself. If the collector has
//! died, step 6 restores the registers, the floating-point state and the blocked signals, and the thread goes
//! on with the system call in which the thread waited before.
#![allow(unsafe_code)] // two symbols of the assembly

use edleak_session::idle::MAX_PLACES;
use std::arch::global_asm;
use std::mem::offset_of;

/// The first argument of the system call at which the collector stops the thread: "edlkdone".
pub(crate) const DONE: u64 = u64::from_le_bytes(*b"edlkdone");

/// Size in bytes of the stack for the call of `dlopen`. The constructor of the library needs a few KiB of
/// stack, and the loader needs some tens of KiB.
pub(crate) const STACK_BYTES: u64 = 512 << 10;

/// The arguments and the results of the code that loads the library.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Block {
    /// The address of `dlopen`.
    pub(crate) dlopen: u64,
    /// The address of `dlerror`.
    pub(crate) dlerror: u64,
    /// The address of `__errno_location`.
    pub(crate) errno_location: u64,
    /// The address of the string with the path of edleak's library.
    pub(crate) path: u64,
    /// The flags for the call of `dlopen`.
    pub(crate) flags: u64,
    /// The memory for the detours of each module. An element of size 0 ends the list of places.
    pub(crate) places: [Place; MAX_PLACES],
    /// The address of the frame for `rt_sigreturn`.
    pub(crate) frame: u64,
    /// A signal set that contains all signals.
    pub(crate) all_signals: u64,
    /// Result: the address of the new stack, or an error of `mmap`.
    pub(crate) stack: u64,
    /// Result: the handle of the library; 0: `dlopen` failed.
    pub(crate) handle: u64,
    /// Result: the address of the message of `dlerror`.
    pub(crate) message: u64,
}

/// Memory for the detours of one module.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Place {
    pub(crate) address: u64,
    pub(crate) bytes: u64,
    /// Result: the address of the memory, or an error of `mmap`.
    pub(crate) result: u64,
}

impl Place {
    /// Converts a list of addresses and sizes into the array in [`Block::places`].
    pub(crate) fn table(places: &[(u64, u64)]) -> [Place; MAX_PLACES] {
        let mut table = [Place::default(); MAX_PLACES];
        for (place, &(address, bytes)) in table.iter_mut().zip(places) {
            *place = Place { address, bytes, result: 0 };
        }
        table
    }
}

global_asm!(
    ".pushsection .rodata.edleak_attach,\"a\",@progbits",
    ".hidden edleak_attach_code, edleak_attach_code_end",
    ".globl edleak_attach_code, edleak_attach_code_end",
    "edleak_attach_code:",
    // 1. rt_sigprocmask(SIG_SETMASK, all, null, 8)
    "mov eax, 14",
    "mov edi, 2",
    "lea rsi, [rbx + {all_signals}]",
    "xor edx, edx",
    "mov r10d, 8",
    "syscall",
    // 2. For each place: mmap(place, size, READ | EXECUTE, PRIVATE | ANONYMOUS | FIXED_NOREPLACE, -1, 0). A
    //    place is memory for the detours of a module. The code maps all places before it maps the stack,
    //    because otherwise the kernel could map the stack at the address of a place.
    "lea r12, [rbx + {places}]",
    "mov r13d, {most_places}",
    "7: mov rsi, [r12 + {place_bytes}]",
    "test rsi, rsi",
    "jz 2f",
    "mov eax, 9",
    "mov rdi, [r12 + {place_address}]",
    "mov edx, 5",
    "mov r10d, 0x100022",
    "mov r8, -1",
    "xor r9d, r9d",
    "syscall",
    "mov [r12 + {place_result}], rax",
    "add r12, {place_size}",
    "dec r13d",
    "jnz 7b",
    // mmap(null, STACK_BYTES, READ | WRITE, PRIVATE | ANONYMOUS | STACK, -1, 0)
    "2: mov eax, 9",
    "xor edi, edi",
    "mov esi, {stack_bytes}",
    "mov edx, 3",
    "mov r10d, 0x20022",
    "mov r8, -1",
    "xor r9d, r9d",
    "syscall",
    "mov [rbx + {stack}], rax",
    "cmp rax, -4096",
    "ja 5f",
    "mov r14, rax",
    // 3. dlopen
    "lea rsp, [r14 + {stack_bytes}]",
    "xor ebp, ebp",
    "cld",
    "call [rbx + {errno_location}]",
    "mov r12, rax",
    "mov r13d, [rax]",
    "mov rdi, [rbx + {path}]",
    "mov rsi, [rbx + {flags}]",
    "call [rbx + {dlopen}]",
    "mov [rbx + {handle}], rax",
    "test rax, rax",
    "jnz 3f",
    "call [rbx + {dlerror}]",
    "mov [rbx + {message}], rax",
    "3: mov [r12], r13d",
    // 4. munmap(stack, STACK_BYTES)
    "mov rsp, rbx",
    "mov eax, 11",
    "mov rdi, r14",
    "mov esi, {stack_bytes}",
    "syscall",
    // 5. getpid()
    "5: mov eax, 39",
    "movabs rdi, {done}",
    "syscall",
    // 6. rt_sigreturn()
    "6: mov rsp, [rbx + {frame}]",
    "mov eax, 15",
    "syscall",
    "jmp 6b",
    "edleak_attach_code_end:",
    ".popsection",
    all_signals = const offset_of!(Block, all_signals),
    stack = const offset_of!(Block, stack),
    places = const offset_of!(Block, places),
    most_places = const MAX_PLACES,
    place_address = const offset_of!(Place, address),
    place_bytes = const offset_of!(Place, bytes),
    place_result = const offset_of!(Place, result),
    place_size = const size_of::<Place>(),
    errno_location = const offset_of!(Block, errno_location),
    path = const offset_of!(Block, path),
    flags = const offset_of!(Block, flags),
    dlopen = const offset_of!(Block, dlopen),
    handle = const offset_of!(Block, handle),
    dlerror = const offset_of!(Block, dlerror),
    message = const offset_of!(Block, message),
    frame = const offset_of!(Block, frame),
    stack_bytes = const STACK_BYTES,
    done = const DONE,
);

/// The machine code that the thread runs to load the library.
pub(crate) fn code() -> &'static [u8] {
    unsafe extern "C" {
        static edleak_attach_code: u8;
        static edleak_attach_code_end: u8;
    }
    let start = &raw const edleak_attach_code;
    let end = &raw const edleak_attach_code_end;
    // SAFETY: the two symbols mark the start and the end of the assembly above, and these bytes never change.
    unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) }
}

impl Block {
    /// The bytes of this block, as the collector writes them into the process.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        self.words().iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn words(self) -> Vec<u64> {
        let Block {
            dlopen,
            dlerror,
            errno_location,
            path,
            flags,
            places,
            frame,
            all_signals,
            stack,
            handle,
            message,
        } = self;
        let mut words = vec![dlopen, dlerror, errno_location, path, flags];
        words.extend(places.iter().flat_map(|place| [place.address, place.bytes, place.result]));
        words.extend([frame, all_signals, stack, handle, message]);
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, Mnemonic};

    #[test]
    fn bytes_of_a_block_are_in_the_order_of_its_fields() {
        let block = Block { places: Place::table(&[(1, 2)]), message: 3, ..Block::default() };
        let bytes = block.to_bytes();
        let word = |at: usize| bytes[at..].first_chunk().map(|word| u64::from_ne_bytes(*word));
        assert_eq!(bytes.len(), size_of::<Block>());
        assert_eq!(word(offset_of!(Block, places)), Some(1));
        assert_eq!(word(offset_of!(Block, places) + offset_of!(Place, bytes)), Some(2));
        assert_eq!(word(offset_of!(Block, message)), Some(3));
    }

    #[test]
    fn code_decodes_and_has_five_kinds_of_system_calls() {
        let instructions: Vec<_> = Decoder::new(64, code(), DecoderOptions::NONE).into_iter().collect();
        assert!(instructions.iter().all(|instruction| !instruction.is_invalid()));
        let calls = instructions.iter().filter(|instruction| instruction.mnemonic() == Mnemonic::Syscall);
        assert_eq!(calls.count(), 6);
        assert!(code().len() < 320, "{}", code().len());
    }
}
