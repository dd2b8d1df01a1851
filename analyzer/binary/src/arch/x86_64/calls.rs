//! Recognizes the call instructions of x86-64: the direct call `call rel32`, and the indirect call FF /2 with
//! any operand.

use memchr::memchr2_iter;

/// Whether the last byte of a call instruction may be in `code[from..]`. `is_code(n)` tells whether the file
/// has code at the offset n from the start of `code`.
pub(crate) fn may_call(code: &[u8], from: usize, is_code: impl Fn(i64) -> bool) -> bool {
    memchr2_iter(CALL, GROUP_5, code).any(|i| {
        let lengths = call_lengths(&code[i..], i as i64, &is_code);
        lengths.iter().any(|length| (from..code.len()).contains(&(i + length - 1)))
    })
}

/// The possible lengths of a call instruction that begins with the first byte of `code`, in bytes. `at` is
/// the offset of `code` in the searched code. The list is empty if `code` does not begin with a call
/// instruction.
fn call_lengths(code: &[u8], at: i64, is_code: impl Fn(i64) -> bool) -> &'static [usize] {
    match *code {
        [CALL, a, b, c, d, ..] => {
            let target = at + 5 + i64::from(i32::from_le_bytes([a, b, c, d]));
            if is_code(target) { &[5] } else { &[] }
        }
        // The length of an indirect call (FF /2) depends on the addressing mode of its operand.
        [GROUP_5, operand, ..] if operand & 0x38 == 0x10 => INDIRECT_LENGTHS[usize::from(operand >> 6)],
        _ => &[],
    }
}

/// The opcode of the direct call, `call rel32`.
const CALL: u8 = 0xe8;
/// The opcode of indirect calls, jumps and pushes. The byte after the opcode (ModRM) shows whether an
/// instruction with this opcode is a call, a jump or a push.
const GROUP_5: u8 = 0xff;
/// Length of the longest call instruction without prefixes, in bytes: FF, ModRM, SIB and four bytes of
/// displacement. The length does not include prefixes, because the search looks for the opcode, which
/// comes after the prefixes.
pub(crate) const MAX_CALL: usize = 7;
/// Possible lengths of FF /2 in bytes, for each value of the mode bits of ModRM. Mode 0 has no displacement
/// (but four bytes with rip or without a base register), mode 1 has one byte of displacement, mode 2 has four
/// bytes, and mode 3 names a register. In the modes 0, 1 and 2, a byte SIB may follow ModRM.
const INDIRECT_LENGTHS: [&[usize]; 4] = [&[2, 3, 6, 7], &[3, 4], &[6, 7], &[2]];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_call_is_seen() {
        let is_call = |bytes: &[u8]| {
            (0..bytes.len()).any(|i| {
                let is_near = |target: i64| (-4096..4096).contains(&target);
                call_lengths(&bytes[i..], i as i64, is_near).contains(&(bytes.len() - i))
            })
        };
        for call in [
            &[0xe8, 0x10, 0, 0, 0][..],      // call rel32
            &[0xff, 0xd0],                   // call rax
            &[0x41, 0xff, 0xd4],             // call r12
            &[0xff, 0x10],                   // call [rax]
            &[0xff, 0x50, 0x18],             // call [rax+0x18]
            &[0x41, 0xff, 0x54, 0x24, 0x08], // call [r12+8]
            &[0xff, 0x90, 0, 1, 0, 0],       // call [rax+0x100]
            &[0xff, 0x15, 1, 2, 3, 0],       // call [rip+…]
            &[0xff, 0x14, 0xc5, 0, 0, 0, 0], // call [rax*8+0]
            &[0x3e, 0xff, 0xd0],             // notrack call rax
            &[0x67, 0xe8, 0x10, 0, 0, 0],    // addr32 call, which a linker writes as padding
        ] {
            assert!(is_call(call), "{call:x?}");
        }
        for other in [
            &[0xe8, 0, 0, 0, 0x70][..], // beyond the end of the file
            &[0xff, 0xe0],              // jmp rax
            &[0xff, 0x25, 0, 0, 0, 0],  // jmp [rip]
            &[0x55, 0x48, 0x89, 0xe5],  // push rbp; mov rbp, rsp
            &[0xc3],
            &[],
        ] {
            assert!(!is_call(other), "{other:x?}");
        }
    }
}
