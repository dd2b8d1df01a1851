//! Tests the detour compiler with real files. The tests also run the compiled code.
#![allow(unsafe_code)] // runs compiled code

use crate::detour::arch::code::{self, Placement, SmallFree, Spacing};
use crate::detour::arch::prologue::{Displaced, displaced};
use crate::detour::entries::FileEntries;
use crate::detour::module::{self, compile};
use crate::detour::table::{self, Prefixes, Shape, Size};
use edleak_binary::BinaryFile;
use edleak_binary::functions::FunctionTable;
use edleak_session::detour::{HOOKS, Hook, SPACING};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};
use std::path::Path;

fn decode(code: &[u8], address: u64) -> Vec<Instruction> {
    Decoder::with_ip(64, code, address, DecoderOptions::NONE).into_iter().collect()
}

/// The target of an instruction's branch, and the address of its memory operand that is relative to rip.
fn targets(instruction: &Instruction) -> (Option<u64>, Option<u64>) {
    let is_branch = (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::NearBranch64);
    let branch = is_branch.then(|| instruction.near_branch_target());
    (branch, instruction.is_ip_rel_memory_operand().then(|| instruction.ip_rel_memory_address()))
}

/// Checks that every instruction of a trampoline does the same as the original instruction at the original
/// address, and that the last instruction jumps back.
fn assert_equivalent(displaced: &Displaced, address: u64) {
    let original = displaced.instructions(displaced.at);
    let code = code::trampoline(displaced, displaced.at, address).expect("near enough");
    let moved = decode(&code, address);
    let mut rest = moved.iter();
    for old in &original {
        let new = rest.next().expect("no instruction is lost");
        if old.mnemonic() == Mnemonic::Call {
            assert_eq!(new.mnemonic(), Mnemonic::Push);
            let at = (new.ip_rel_memory_address() - address) as usize;
            let returns_to = u64::from_le_bytes(code[at..at + 8].try_into().expect("eight bytes"));
            assert_eq!(returns_to, old.next_ip(), "a call returns into the original code");
            let jump = rest.next().expect("a jump follows");
            assert_eq!((jump.mnemonic(), targets(jump)), (Mnemonic::Jmp, targets(old)));
            return;
        }
        assert_eq!((new.mnemonic(), new.op_count()), (old.mnemonic(), old.op_count()), "{old:?}");
        let (branch, memory) = targets(old);
        // A branch to an instruction that was moved must lead to the new address of this instruction.
        let is_moved = branch.is_some_and(|target| original.iter().any(|other| other.ip() == target));
        if !is_moved {
            assert_eq!(targets(new).0, branch, "{old:?}");
        }
        assert_eq!(targets(new).1, memory, "{old:?}");
        for operand in 0..old.op_count() {
            if old.op_kind(operand) == OpKind::Register {
                assert_eq!(new.op_register(operand), old.op_register(operand), "{old:?}");
            }
        }
    }
    if !displaced.ends {
        let back = rest.next().expect("a jump leads back");
        assert_eq!(
            (back.mnemonic(), targets(back).0),
            (Mnemonic::Jmp, Some(displaced.at + displaced.moved as u64))
        );
    }
}

#[test]
fn every_movable_prologue_of_large_libraries_is_moved_right() {
    let mut moved = 0;
    for library in ["libc.so.6", "libstdc++.so.6", "libjemalloc.so.2", "libcrypto.so.3"] {
        let path = Path::new("/usr/lib/x86_64-linux-gnu").join(library);
        let Ok(binary) = BinaryFile::open(&path) else { continue };
        let elf = binary.elf().expect("a library of the system is sound");
        let table = FunctionTable::of(&elf);
        let base = elf.link_base();
        for (index, function) in table.functions.iter().enumerate() {
            let start = base + u64::from(function.start);
            let next = table.functions[index..].iter().find(|other| other.start > function.start);
            let next = next.map_or(u64::MAX, |next| base + u64::from(next.start));
            let Some(bytes) = elf.loaded_from(start) else { continue };
            if let Ok(displaced) = displaced(bytes, start, base + u64::from(function.end), next) {
                assert_equivalent(&displaced, start + 0x7000_0000);
                moved += 1;
            }
        }
    }
    assert!(moved > 1000, "{moved} functions are too few for a test");
}

#[test]
fn an_allocator_of_the_system_is_found_with_all_its_functions() {
    let path = Path::new("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2");
    let binary = BinaryFile::open(path).expect("tests/setup.sh installs libjemalloc.so.2");
    let elf = binary.elf().expect("a library of the system is sound");
    let found = FileEntries::find(&elf, &FunctionTable::of(&elf), &Prefixes::default(), |_| true);
    assert!(found.exports_malloc);
    let names = |is_program| {
        let selection = module::select(&found, is_program);
        assert!(selection.unseen.is_empty(), "all can be moved: {:?}", selection.unseen);
        selection.redirected.iter().map(|entry| entry.name.clone()).collect::<Vec<_>>()
    };
    let of_library = names(false);
    assert!(
        !of_library.contains(&"malloc".to_owned()),
        "a preloaded library takes its place: {of_library:?}"
    );
    for name in ["mallocx", "rallocx", "xallocx", "sdallocx", "dallocx"] {
        assert!(of_library.contains(&name.to_owned()), "{name} in {of_library:?}");
    }
    let of_program = names(true);
    for name in ["malloc", "free", "calloc", "realloc", "posix_memalign", "_Znwm", "mallocx"] {
        assert!(of_program.contains(&name.to_owned()), "{name} in {of_program:?}");
    }
}

/// Executable memory for tests: the functions are at the start of the memory, and the stubs are one page
/// later.
struct Machine(*mut u8);

const PAGE: usize = 4096;

impl Machine {
    fn new(functions: &[u8]) -> Machine {
        let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: the kernel chooses the address of the new mapping, so no other memory changes.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), 4 * PAGE, all, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        let machine = Machine(base.cast());
        machine.write(0, functions);
        machine
    }

    fn address(&self, offset: usize) -> u64 {
        self.0 as u64 + offset as u64
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= 4 * PAGE);
        // SAFETY: the destination lies within the mapping, which no other code uses during the copy.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.wrapping_add(offset), bytes.len()) };
    }

    fn call(&self, offset: usize, arguments: [u64; 3]) -> u64 {
        // SAFETY: the tests write a function of this type to this offset before the call.
        let function: extern "C" fn(u64, u64, u64) -> u64 =
            unsafe { std::mem::transmute(self.0.wrapping_add(offset)) };
        function(arguments[0], arguments[1], arguments[2])
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: this mapping belongs to `self`, and no code uses this memory after the drop.
        unsafe { libc::munmap(self.0.cast(), 4 * PAGE) };
    }
}

/// The code of a hook that only jumps to the trampoline: `jmp r11`.
const JUMP_R11: [u8; 3] = [0x41, 0xff, 0xe3];
const HOOK_AT: usize = 3 * PAGE;

fn placement(address: u64) -> Placement {
    Placement { bias: 0, address, spacing: Spacing::Requested, own_code: (0, 0), realloc_frees: false }
}

/// Writes a detour for the function at offset 0, which has the shape `shape`.
fn detour(machine: &Machine, length: usize, shape: Shape, small_free: SmallFree) {
    // SAFETY: the range lies within the mapping, and nothing writes to it during the copy.
    let bytes = unsafe { std::slice::from_raw_parts(machine.0, length) }.to_vec();
    let (start, end) = (machine.address(0), machine.address(length));
    let found = displaced(&bytes, start, end, end + 64).expect("it can be moved");
    machine.write(HOOK_AT, &JUMP_R11);
    for hook in 0..HOOKS {
        machine.write(PAGE + 8 * hook, &machine.address(HOOK_AT).to_le_bytes());
    }
    let (trampoline, stub) = (machine.address(PAGE + 256), machine.address(PAGE + 512));
    machine.write(PAGE + 256, &code::trampoline(&found, found.at, trampoline).expect("near"));
    machine.write(
        PAGE + 512,
        &code::stub(shape, trampoline, small_free, &placement(machine.address(PAGE)), stub).expect("near"),
    );
    machine.write((found.at - start) as usize, &code::jump(found.at, stub).expect("near"));
}

const FREE: Shape = Shape::Free;

#[test]
fn moved_prologues_run_as_the_originals() {
    let programs: [(&str, &[u8]); 5] = [
        // push rbx; mov rbx, rdi; lea rax, [rbx + rsi]; pop rbx; ret
        ("plain", &[0x53, 0x48, 0x89, 0xfb, 0x48, 0x8d, 0x04, 0x33, 0x5b, 0xc3]),
        // lea rax, [rip + 0]; neg rax; add rax, rdi; ret — the result depends on the address of this code
        ("rip-relative", &[0x48, 0x8d, 5, 0, 0, 0, 0, 0x48, 0xf7, 0xd8, 0x48, 0x01, 0xf8, 0xc3]),
        // test rdi, rdi; je +4; mov rax, rdi; ret; mov rax, rsi; ret
        ("conditional", &[0x48, 0x85, 0xff, 0x74, 4, 0x48, 0x89, 0xf8, 0xc3, 0x48, 0x89, 0xf0, 0xc3]),
        // call +2; (returns:) jmp short +4; lea rax, [rdi + 7]; ret; inc rax; ret
        ("call", &[0xe8, 2, 0, 0, 0, 0xeb, 5, 0x48, 0x8d, 0x47, 7, 0xc3, 0x48, 0xff, 0xc0, 0xc3]),
        // endbr64; mov eax, edi; add rax, rsi; ret
        ("endbr64", &[0xf3, 0x0f, 0x1e, 0xfa, 0x89, 0xf8, 0x48, 0x01, 0xf0, 0xc3]),
    ];
    for (name, bytes) in programs {
        let machine = Machine::new(bytes);
        let inputs = [[0, 5, 0], [3, 4, 0], [1 << 40, 2, 9]];
        let expected = inputs.map(|input| machine.call(0, input));
        detour(&machine, bytes.len(), FREE, SmallFree::Raised);
        assert_eq!(inputs.map(|input| machine.call(0, input)), expected, "{name}");
    }
}

// The tested function returns the argument that holds the size, so the test sees the size that the stub
// passes.
#[test]
fn small_sizes_are_raised_and_no_others() {
    // mov rax, rdi; nop; nop; ret
    let first = [0x48, 0x89, 0xf8, 0x90, 0x90, 0xc3];
    let machine = Machine::new(&first);
    detour(&machine, first.len(), Shape::Allocate(Size::Argument(0)), SmallFree::Raised);
    for size in [0, 1, 31, 32, 33, 1 << 20, u64::MAX] {
        assert_eq!(machine.call(0, [size, 0, 0]), size.max(SPACING as u64), "{size}");
    }
    let machine = Machine::new(&first);
    detour(&machine, first.len(), Shape::FreeSized { size: 0, flags: None }, SmallFree::Raised);
    for size in [0, 31, 32, 1000] {
        assert_eq!(machine.call(0, [size, 0, 0]), size.max(SPACING as u64), "{size}");
    }
}

#[test]
fn small_products_are_raised_and_overflows_left_to_fail() {
    // mov rax, rdi; shl rax, 8; xor rax, rsi; ret — the result depends on both arguments
    let both = [0x48, 0x89, 0xf8, 0x48, 0xc1, 0xe0, 8, 0x48, 0x31, 0xf0, 0xc3];
    let machine = Machine::new(&both);
    let plain = |count: u64, size: u64| count.wrapping_shl(8) ^ size;
    detour(&machine, both.len(), Shape::Allocate(Size::Product(0, 1)), SmallFree::Raised);
    for (count, size) in [(0, 0), (1, 31), (31, 1), (3, 10), (0, u64::MAX), (0, 77)] {
        assert_eq!(machine.call(0, [count, size, 0]), plain(1, SPACING as u64), "{count} × {size}");
    }
    for (count, size) in [
        (1, 32),
        (4, 8),
        (u64::MAX, u64::MAX),
        (1 << 63, 2),
        (1 << 33, 1 << 33),
        (u64::MAX, 1),
        (1 << 60, 16),
    ] {
        assert_eq!(machine.call(0, [count, size, 0]), plain(count, size), "{count} × {size}");
    }
}

#[test]
fn a_reallocation_to_nothing_stays_one() {
    // mov rax, rsi; nop; nop; ret
    let second = [0x48, 0x89, 0xf0, 0x90, 0x90, 0xc3];
    let machine = Machine::new(&second);
    let shape = Shape::Reallocate { old: 0, size: Size::Argument(1), frees_on_failure: false };
    detour(&machine, second.len(), shape, SmallFree::Raised);
    assert_eq!(machine.call(0, [0x1000, 0, 0]), 0, "it frees");
    assert_eq!(machine.call(0, [0, 0, 0]), SPACING as u64, "it allocates");
    assert_eq!(machine.call(0, [0x1000, 7, 0]), SPACING as u64);
    assert_eq!(machine.call(0, [0x1000, 700, 0]), 700);
}

#[test]
fn a_small_sized_free_goes_to_the_plain_one() {
    // mov rax, rdx; nop; nop; ret
    let sized = [0x48, 0x89, 0xd0, 0x90, 0x90, 0xc3];
    let machine = Machine::new(&sized);
    // The plain free: mov eax, esi; not rax; ret
    machine.write(1024, &[0x89, 0xf0, 0x48, 0xf7, 0xd0, 0xc3]);
    let plain = SmallFree::Plain(machine.address(1024));
    detour(&machine, sized.len(), Shape::FreeSized { size: 1, flags: Some(2) }, plain);
    assert_eq!(machine.call(0, [1, 8, 5]), !5, "with its flags where the plain one has them");
    assert_eq!(machine.call(0, [1, 32, 5]), 5, "a size that is not raised stays with the sized one");
}

/// The functions of this process's libc that map and unmap memory.
fn mappings_of_libc() -> FileEntries {
    let binary = BinaryFile::open(Path::new("/usr/lib/x86_64-linux-gnu/libc.so.6")).expect("glibc");
    let elf = binary.elf().expect("a library of the system is sound");
    FileEntries::of_mappings(&elf, &FunctionTable::of(&elf))
}

#[test]
fn mmap_and_its_kin_of_libc_can_be_moved() {
    let found = mappings_of_libc();
    let obstacles: Vec<_> =
        found.entries.iter().map(|entry| (&entry.name, entry.displaced.as_ref().err())).collect();
    assert_eq!(found.entries.len(), table::MAPPING_HOOKS, "{obstacles:?}");
    assert!(obstacles.iter().all(|(_, obstacle)| obstacle.is_none()), "{obstacles:?}");
}

#[test]
fn calls_of_a_module_by_itself_pass_over_the_hook() {
    // mov rax, rdi; nop; nop; ret
    let function = [0x48, 0x89, 0xf8, 0x90, 0x90, 0xc3];
    let machine = Machine::new(&function);
    // A caller: sub rsp, 8; call rsi; add rsp, 8; ret
    const CALLER_AT: usize = 2048;
    machine.write(CALLER_AT, &[0x48, 0x83, 0xec, 8, 0xff, 0xd6, 0x48, 0x83, 0xc4, 8, 0xc3]);
    detour(&machine, function.len(), Shape::Mapping(Hook::Map), SmallFree::Raised);
    // The hook: mov eax, 7; ret
    machine.write(HOOK_AT, &[0xb8, 7, 0, 0, 0, 0xc3]);
    assert_eq!(machine.call(CALLER_AT, [3, machine.address(0), 0]), 7, "the hook runs");
    for (first, bytes, result) in [(CALLER_AT, 64, 3), (CALLER_AT + 7, 64, 7), (CALLER_AT - 64, 70, 7)] {
        let (trampoline, stub) = (machine.address(PAGE + 256), machine.address(PAGE + 512));
        let own_code = (machine.address(first), bytes);
        let placement = Placement { own_code, ..placement(machine.address(PAGE)) };
        let stub = code::stub(Shape::Mapping(Hook::Map), trampoline, SmallFree::Raised, &placement, stub);
        machine.write(PAGE + 512, &stub.expect("near"));
        assert_eq!(machine.call(CALLER_AT, [3, machine.address(0), 0]), result, "{first} + {bytes}");
    }
}

#[test]
fn a_small_sized_free_goes_to_a_reallocation_to_nothing() {
    // mov rax, rdx; nop; nop; ret
    let sized = [0x48, 0x89, 0xd0, 0x90, 0x90, 0xc3];
    let machine = Machine::new(&sized);
    // The realloc: lea rax, [rdi + rsi]; not rax; ret
    machine.write(1024, &[0x48, 0x8d, 0x04, 0x37, 0x48, 0xf7, 0xd0, 0xc3]);
    let realloc = SmallFree::Reallocated(machine.address(1024));
    detour(&machine, sized.len(), Shape::FreeSized { size: 1, flags: Some(2) }, realloc);
    assert_eq!(machine.call(0, [64, 8, 5]), !64, "with size 0");
    assert_eq!(machine.call(0, [64, 32, 5]), 5, "a size that is not raised stays with the sized one");
}

#[test]
fn whole_modules_compile_within_their_room() {
    let path = Path::new("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2");
    let binary = BinaryFile::open(path).expect("tests/setup.sh installs libjemalloc.so.2");
    let elf = binary.elf().expect("a library of the system is sound");
    let found = FileEntries::find(&elf, &FunctionTable::of(&elf), &Prefixes::default(), |_| true);
    let redirected = module::select(&found, true).redirected;
    let (bias, address) = (0x7f00_0000_0000, 0x7eff_ff00_0000);
    let compiled = compile(&redirected, &Placement { bias, ..placement(address) }).expect("near enough");
    assert!(compiled.code.len() as u64 <= module::most_bytes(&redirected));
    assert_eq!(compiled.patches.len(), redirected.len());
    for patch in &compiled.patches {
        let [jump] = decode(&patch.jump, patch.address)[..] else { panic!("one jump") };
        let stub = jump.near_branch_target();
        let code = &compiled.code[(stub - address) as usize..];
        let hook = decode(code, stub).into_iter().find(|instruction| instruction.mnemonic() == Mnemonic::Jmp);
        let slot = hook.expect("a stub ends in a jump").ip_rel_memory_address();
        assert!((address..address + 8 * HOOKS as u64).contains(&slot), "to a hook: {slot:#x}");
        assert_eq!(
            &elf.loaded_from(patch.address - bias).expect("code")[..patch.expected.len()],
            patch.expected
        );
    }
    assert!((Hook::Free as usize) < HOOKS);
}
