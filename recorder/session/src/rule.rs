//! One packed unwind rule: how to find the caller's frame from a return address, in 32 bits.
//!
//! | bits   | field        | meaning                                                                    |
//! |--------|--------------|----------------------------------------------------------------------------|
//! | 0..3   | kind         | [`Kind`]                                                                   |
//! | 3..20  | `cfa_words`  | CFA = rsp (or rbp) + 8 · this; at most 1 MiB − 8                           |
//! | 20..32 | `rbp_words`  | the caller's rbp lies at CFA − 8 · this; 0: this frame did not change rbp  |
//!
//! "rsp" is its value just after the call returned to this frame. The frame's own return address always lies at CFA − 8
//! (x86-64 psABI); a frame where it does not has no rule. Rules come from .eh_frame, compiled by the collector; the
//! target only reads them.

/// What the CFA is computed from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Kind {
    /// No rule: the walk stops here and the stack is cut.
    Unknown = 0,
    /// CFA = rsp + offset.
    Rsp = 1,
    /// CFA = rbp + offset.
    Rbp = 2,
    /// The outermost frame: there is no caller.
    End = 3,
    /// A signal trampoline: the interrupted registers lie in the `ucontext` at rsp.
    Signal = 4,
}

/// A packed unwind rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Rule(pub u32);

const CFA_BITS: u32 = 17;
const RBP_BITS: u32 = 12;
const CFA_SHIFT: u32 = 3;
const RBP_SHIFT: u32 = CFA_SHIFT + CFA_BITS;
const CFA_MASK: u32 = ((1 << CFA_BITS) - 1) << CFA_SHIFT;
const _: () = assert!(1 << CFA_SHIFT == size_of::<u64>());
const _: () = assert!(RBP_SHIFT + RBP_BITS == 32);

impl Rule {
    /// No rule.
    pub const UNKNOWN: Rule = Rule(Kind::Unknown as u32);
    /// The outermost frame.
    pub const END: Rule = Rule(Kind::End as u32);
    /// A signal trampoline.
    pub const SIGNAL: Rule = Rule(Kind::Signal as u32);

    /// Packs a rule; `None` when an offset is negative, odd or too large to be packed.
    ///
    /// `cfa_offset` is in bytes from rsp or rbp to the CFA, `rbp_offset` in bytes from the saved rbp up to the CFA
    /// (`None` where the frame did not save it).
    pub const fn pack(kind: Kind, cfa_offset: i64, rbp_offset: Option<i64>) -> Option<Rule> {
        let rbp_offset = match rbp_offset {
            Some(0) => return None, // 0 is "not saved"; at the CFA itself lies the caller's frame
            Some(bytes) => bytes,
            None => 0,
        };
        let fits = cfa_offset >= 0
            && cfa_offset % 8 == 0
            && cfa_offset / 8 < (1 << CFA_BITS)
            && rbp_offset >= 0
            && rbp_offset % 8 == 0
            && rbp_offset / 8 < (1 << RBP_BITS);
        if !fits {
            return None;
        }
        let cfa_words = (cfa_offset / 8) as u32;
        let rbp_words = (rbp_offset / 8) as u32;
        Some(Rule(kind as u32 | cfa_words << CFA_SHIFT | rbp_words << RBP_SHIFT))
    }

    /// What the CFA is computed from. An unused bit pattern counts as unknown.
    #[inline]
    pub const fn kind(self) -> Kind {
        match self.0 & 7 {
            1 => Kind::Rsp,
            2 => Kind::Rbp,
            3 => Kind::End,
            4 => Kind::Signal,
            _ => Kind::Unknown,
        }
    }

    /// Bytes from rsp or rbp to the CFA.
    #[inline]
    pub const fn cfa_offset(self) -> usize {
        (self.0 & CFA_MASK) as usize
    }

    /// Bytes from the saved rbp up to the CFA; 0 where rbp was not saved.
    #[inline]
    pub const fn rbp_offset(self) -> usize {
        (self.0 >> RBP_SHIFT) as usize * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_fields_come_back() {
        for kind in [Kind::Rsp, Kind::Rbp] {
            for cfa in [0, 8, 16, 4096, ((1 << CFA_BITS) - 1) * 8] {
                for rbp in [None, Some(8), Some(16), Some(((1 << RBP_BITS) - 1) * 8)] {
                    let rule = Rule::pack(kind, cfa, rbp).expect("all of these fit");
                    assert_eq!(rule.kind(), kind);
                    assert_eq!(rule.cfa_offset(), cfa as usize);
                    assert_eq!(rule.rbp_offset(), rbp.unwrap_or(0) as usize);
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(Rule::pack(Kind::Rsp, -8, None), None);
        assert_eq!(Rule::pack(Kind::Rsp, 12, None), None);
        assert_eq!(Rule::pack(Kind::Rsp, 8 << CFA_BITS, None), None);
        assert_eq!(Rule::pack(Kind::Rsp, 16, Some(0)), None);
        assert_eq!(Rule::pack(Kind::Rsp, 16, Some(8 << RBP_BITS)), None);
    }

    #[test]
    fn unused_kinds_are_unknown() {
        assert_eq!(Rule(5).kind(), Kind::Unknown);
        assert_eq!(Rule(7).kind(), Kind::Unknown);
        assert_eq!(Rule::default().kind(), Kind::Unknown);
    }
}
