//! One unwind rule in 32 bits. With the rule of a return address, the library finds the frame of the caller.
//!
//! | bits   | field        | meaning                                                                    |
//! |--------|--------------|----------------------------------------------------------------------------|
//! | 0..3   | kind         | [`Kind`]                                                                   |
//! | 3..20  | `cfa_words`  | CFA = sp (or fp) + 8 · `cfa_words`; at most 1 MiB − 8                      |
//! | 20..32 | `fp_words`   | the caller's fp lies at CFA − 8 · `fp_words`; 0: this frame keeps fp       |
//!
//! The CFA (canonical frame address) is the value of sp in the caller, just before the caller called this
//! frame's function. "sp" is the stack pointer just after the call returned to this frame. The return address
//! of a frame always lies [`RETURN_ADDRESS_TO_CFA`] bytes below the CFA. If the return address of a frame
//! lies at another distance from the CFA, the collector makes no rule for this frame. The collector compiles
//! the rules from .eh_frame; the target only reads the rules.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::RETURN_ADDRESS_TO_CFA;
#[cfg(target_arch = "x86_64")]
use x86_64::{FRAME_POINTER_CFA_OFFSET, FRAME_POINTER_FP_OFFSET};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("edleak's unwind rules know x86-64 only (add a file beside rule/x86_64.rs)");

/// The register from which the rule computes the CFA, or the reason why the rule computes no CFA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Kind {
    /// No rule: the walk stops here, before the outermost frame, and the library marks the stack as cut.
    Unknown = 0,
    /// The CFA (canonical frame address) is the stack pointer (sp) plus the rule's offset.
    Sp = 1,
    /// The CFA (canonical frame address) is the frame pointer (fp) plus the rule's offset.
    Fp = 2,
    /// The outermost frame: there is no caller.
    End = 3,
    /// A signal trampoline: the registers of the interrupted function lie in the `ucontext` at sp.
    Signal = 4,
}

/// A packed unwind rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Rule(pub u32);

const CFA_BITS: u32 = 17;
const FP_BITS: u32 = 12;
const CFA_SHIFT: u32 = 3;
const FP_SHIFT: u32 = CFA_SHIFT + CFA_BITS;
const CFA_MASK: u32 = ((1 << CFA_BITS) - 1) << CFA_SHIFT;
const _: () = assert!(1 << CFA_SHIFT == size_of::<u64>());
const _: () = assert!(FP_SHIFT + FP_BITS == 32);

/// The rule of a function that keeps a frame pointer (`push rbp; mov rbp, rsp`).
pub const FRAME_POINTER_RULE: Rule =
    match Rule::pack(Kind::Fp, FRAME_POINTER_CFA_OFFSET, Some(FRAME_POINTER_FP_OFFSET)) {
        Some(rule) => rule,
        None => panic!("these offsets fit"),
    };

impl Rule {
    /// The rule that stops the walk, because nothing is known about the frame.
    pub const UNKNOWN: Rule = Rule(Kind::Unknown as u32);
    /// The rule of the outermost frame; at this frame the walk is complete.
    pub const END: Rule = Rule(Kind::End as u32);
    /// The rule of a signal trampoline.
    pub const SIGNAL: Rule = Rule(Kind::Signal as u32);

    /// Packs a rule; `None` if an offset is negative, not a multiple of 8, or too large.
    ///
    /// `cfa_offset` is the number of bytes from sp or fp to the CFA. `fp_offset` is the number of bytes from
    /// the saved fp up to the CFA (`None`: the frame did not save fp).
    pub const fn pack(kind: Kind, cfa_offset: i64, fp_offset: Option<i64>) -> Option<Rule> {
        let fp_offset = match fp_offset {
            Some(0) => return None, // in a rule, 0 means that fp was not saved
            Some(bytes) => bytes,
            None => 0,
        };
        let fits = cfa_offset >= 0
            && cfa_offset % 8 == 0
            && cfa_offset / 8 < (1 << CFA_BITS)
            && fp_offset >= 0
            && fp_offset % 8 == 0
            && fp_offset / 8 < (1 << FP_BITS);
        if !fits {
            return None;
        }
        let cfa_words = (cfa_offset / 8) as u32;
        let fp_words = (fp_offset / 8) as u32;
        Some(Rule(kind as u32 | cfa_words << CFA_SHIFT | fp_words << FP_SHIFT))
    }

    /// The kind of the rule. If the bits are not the number of a kind, the kind is `Unknown`.
    #[inline]
    pub const fn kind(self) -> Kind {
        match self.0 & 7 {
            1 => Kind::Sp,
            2 => Kind::Fp,
            3 => Kind::End,
            4 => Kind::Signal,
            _ => Kind::Unknown,
        }
    }

    /// Number of bytes from sp or fp to the CFA.
    #[inline]
    pub const fn cfa_offset(self) -> usize {
        (self.0 & CFA_MASK) as usize
    }

    /// Number of bytes from the saved fp up to the CFA; 0: the frame did not save fp.
    #[inline]
    pub const fn fp_offset(self) -> usize {
        (self.0 >> FP_SHIFT) as usize * 8
    }
}

#[cfg(all(test, not(edleak_loom)))]
mod tests {
    use super::*;

    #[test]
    fn packed_fields_come_back() {
        for kind in [Kind::Sp, Kind::Fp] {
            for cfa in [0, 8, 16, 4096, ((1 << CFA_BITS) - 1) * 8] {
                for fp in [None, Some(8), Some(16), Some(((1 << FP_BITS) - 1) * 8)] {
                    let rule = Rule::pack(kind, cfa, fp).expect("all of these fit");
                    assert_eq!(rule.kind(), kind);
                    assert_eq!(rule.cfa_offset(), cfa as usize);
                    assert_eq!(rule.fp_offset(), fp.unwrap_or(0) as usize);
                }
            }
        }
    }

    #[test]
    fn fields_that_do_not_fit_are_refused() {
        assert_eq!(Rule::pack(Kind::Sp, -8, None), None);
        assert_eq!(Rule::pack(Kind::Sp, 12, None), None);
        assert_eq!(Rule::pack(Kind::Sp, 8 << CFA_BITS, None), None);
        assert_eq!(Rule::pack(Kind::Sp, 16, Some(0)), None);
        assert_eq!(Rule::pack(Kind::Sp, 16, Some(8 << FP_BITS)), None);
    }

    #[test]
    fn unused_kinds_are_unknown() {
        assert_eq!(Rule(5).kind(), Kind::Unknown);
        assert_eq!(Rule(7).kind(), Kind::Unknown);
        assert_eq!(Rule::default().kind(), Kind::Unknown);
    }
}
