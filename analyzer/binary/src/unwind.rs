//! Compiles the section .eh_frame into a sorted table of rules. A rule tells how to find the caller of a
//! frame: the table is sorted by code offset, and the offset of the frame's pc selects the rule.
//!
//! Each row of the table applies from its offset to the offset of the next row. Code without an entry in
//! .eh_frame has the rule [`CallerRule::Unknown`]. Code also has the rule `Unknown` if its entry computes
//! the CFA with an expression, or from a register other than the stack pointer and the frame pointer.
//! Examples are the entries of the PLT and of functions that realign their stack.
//!
//! The unwind tables of a large program have a million rules. To save memory, the caller of this module
//! chooses a small type `R` for a packed rule. For a return address, a walk looks up the address − 1,
//! which is inside the call. For the pc at which a signal interrupted the code, a walk looks up the pc
//! itself.

use crate::arch::Registers;
use crate::elf::Elf;
use gimli::{
    BaseAddresses, CfaRule, CieOrFde, CommonInformationEntry, DebugFrame, EhFrame, EhFrameHdr, EhFrameOffset,
    EndianSlice, FrameDescriptionEntry, LittleEndian, RegisterRule, UnwindContext, UnwindSection,
    UnwindTableRow,
};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

type Bytes<'data> = EndianSlice<'data, LittleEndian>;

/// How to find the caller of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallerRule {
    /// The unwind information does not show how to find the caller.
    Unknown,
    /// The frame is the outermost frame, so it has no caller.
    End,
    /// The frame is a signal trampoline. The kernel has saved the registers of the interrupted code
    /// on the stack.
    Signal,
    /// The caller's frame begins at the CFA of this frame.
    Cfa {
        /// The register from which the CFA of this frame is computed.
        from: Base,
        /// Distance from the register's value to the CFA, in bytes.
        offset: i64,
        /// Distance from the place on the stack where this frame saved the frame pointer up to the CFA, in
        /// bytes. `None`: the frame did not save the frame pointer.
        saved_fp: Option<i64>,
    },
}

/// The register from which a CFA is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Base {
    /// The stack pointer.
    Sp,
    /// The frame pointer.
    Fp,
}

/// One row: a rule, and the offset of the first code to which the rule applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row<R> {
    /// Offset of the first code of the row, from the file's link-time base.
    pub start: u32,
    /// The rule to find the caller of a frame whose pc is in this row.
    pub rule: R,
}

/// The rules of one file, packed as `R`. The default of `R` stands for [`CallerRule::Unknown`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UnwindTable<R> {
    /// The rows, sorted by `start`. Two neighbouring rows always have different rules.
    pub rows: Vec<Row<R>>,
    /// Number of damaged entries of .eh_frame. Code with a damaged entry has no unwind rule.
    pub bad_entries: usize,
}

/// A range of code with one unwind rule. `Compiler` first collects all these ranges, and sorts them at the
/// end.
#[derive(Clone, Copy)]
struct Stretch<R> {
    start: u32,
    end: u32,
    rule: R,
}

impl<R: Copy + PartialEq + Default> UnwindTable<R> {
    /// Compiles the unwind information of `elf`: .eh_frame, or .debug_frame if the file has no .eh_frame. If
    /// the file has neither .eh_frame nor .debug_frame, the table is empty. `pack` converts a rule to its
    /// packed form, of type `R`.
    pub fn compile(elf: &Elf<'_>, pack: impl Fn(CallerRule) -> R) -> Self {
        let mut compiler = Compiler::new(elf, &pack);
        if let Some((address, data)) = elf.section(".eh_frame").filter(|(_, data)| data.len() > 4) {
            compiler.run(EhFrame::new(&data, LittleEndian), &eh_bases(elf, address));
        } else if let Some((address, data)) = eh_frame_from_header(elf) {
            compiler.run(EhFrame::new(data, LittleEndian), &eh_bases(elf, address));
        }
        if compiler.stretches.is_empty()
            && let Some((_, data)) = elf.section(".debug_frame")
        {
            compiler.run(DebugFrame::new(&data, LittleEndian), &BaseAddresses::default());
        }
        compiler.finish()
    }

    /// Compiles only the rules for the code ranges in `functions`, which must be sorted and must not overlap.
    /// The table may also contain rules for code outside `functions`; these additional rules are correct,
    /// too.
    ///
    /// The function searches the sorted index of the file (.eh_frame_hdr) for the entries of `functions`. In
    /// a large program, to read all entries of .eh_frame would take many times as long. If the file has no
    /// index, the function reads all entries.
    pub fn compile_in(elf: &Elf<'_>, functions: &[Range<u32>], pack: impl Fn(CallerRule) -> R) -> Self {
        let listed = listed_entries(elf, functions).zip(elf.section(".eh_frame"));
        let Some((offsets, (address, data))) = listed else { return Self::compile(elf, pack) };
        let mut compiler = Compiler::new(elf, &pack);
        let section = EhFrame::new(&data, LittleEndian);
        match compiler.run_listed(&section, &eh_bases(elf, address), &offsets, data.len()) {
            Some(()) => compiler.finish(),
            None => Self::compile(elf, pack),
        }
    }

    /// The unwind rule for the code at `offset`.
    pub fn lookup(&self, offset: u32) -> R {
        let after = self.rows.partition_point(|row| row.start <= offset);
        after.checked_sub(1).and_then(|row| self.rows.get(row)).map_or_else(R::default, |row| row.rule)
    }

    /// The parts of `start..end` for which the table has a rule.
    pub fn known_in(&self, start: u32, end: u32) -> impl Iterator<Item = (u32, u32, R)> + '_ {
        let first = self.rows.partition_point(|row| row.start <= start).saturating_sub(1);
        let rows = self.rows.get(first..).unwrap_or_default();
        rows.iter().enumerate().take_while(move |(_, row)| row.start < end).filter_map(move |(i, row)| {
            let next = rows.get(i + 1).map_or(u32::MAX, |next| next.start);
            let (from, to) = (row.start.max(start), next.min(end));
            (from < to && row.rule != R::default()).then_some((from, to, row.rule))
        })
    }
}

/// The addresses to which pointers in .eh_frame may be relative. On the machines on which edleak records, no
/// pointer is relative to the section .text or to the GOT, so the function does not set the addresses of
/// .text and of the GOT.
fn eh_bases(elf: &Elf<'_>, eh_frame: u64) -> BaseAddresses {
    let bases = BaseAddresses::default().set_eh_frame(eh_frame);
    match elf.eh_frame_hdr() {
        Some(address) => bases.set_eh_frame_hdr(address),
        None => bases,
    }
}

/// Finds .eh_frame in a file without section headers: its address and its bytes.
fn eh_frame_from_header<'data>(elf: &Elf<'data>) -> Option<(u64, &'data [u8])> {
    let address = elf.eh_frame_hdr()?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(address);
    let header = EhFrameHdr::new(elf.loaded_from(address)?, LittleEndian).parse(&bases, 8).ok()?;
    let eh_frame = header.eh_frame_ptr().direct().ok()?;
    Some((eh_frame, elf.loaded_from(eh_frame)?))
}

/// The entries of .eh_frame that overlap one of `functions`, found with the index in .eh_frame_hdr. `None`:
/// the file has no index.
fn listed_entries(elf: &Elf<'_>, functions: &[Range<u32>]) -> Option<Vec<EhFrameOffset>> {
    let address = elf.eh_frame_hdr()?;
    let (eh_frame, _) = elf.section(".eh_frame")?;
    let bases = eh_bases(elf, eh_frame);
    let header = EhFrameHdr::new(elf.loaded_from(address)?, LittleEndian).parse(&bases, 8).ok()?;
    let table = header.table()?;
    let mut entries = table.iter(&bases);
    let mut found = Vec::new();
    let mut functions = functions.iter().peekable();
    let mut entry = entries.next().ok()?;
    while let Some((start, pointer)) = entry {
        let next = entries.next().ok()?;
        // The index has the start of each entry's code but not its end. An entry's code ends at the
        // latest where the code of the next entry begins. The last entry has no next entry, so take the
        // greatest offset as its end.
        let start = elf.offset_of(start.direct().ok()?)?;
        let end = match &next {
            Some((next, _)) => elf.offset_of(next.direct().ok()?)?,
            None => u32::MAX,
        };
        while functions.next_if(|function| function.end <= start).is_some() {}
        match functions.peek() {
            None => break,
            Some(function) if function.start < end => found.push(table.pointer_to_offset(pointer).ok()?),
            Some(_) => {}
        }
        entry = next;
    }
    Some(found)
}

/// Returns the common entry (CIE) at an offset. Many entries refer to the same common entry, so the function
/// parses a common entry once and keeps it.
fn common_entry<'section, S>(
    known: &mut HashMap<S::Offset, CommonInformationEntry<Bytes<'section>>>,
    section: &S,
    bases: &BaseAddresses,
    offset: S::Offset,
) -> gimli::Result<CommonInformationEntry<Bytes<'section>>>
where
    S: UnwindSection<Bytes<'section>>,
    S::Offset: std::hash::Hash + Eq,
{
    Ok(match known.entry(offset) {
        Entry::Occupied(known) => known.get().clone(),
        Entry::Vacant(place) => place.insert(section.cie_from_offset(bases, offset)?).clone(),
    })
}

struct Compiler<'elf, 'data, R, P> {
    elf: &'elf Elf<'data>,
    registers: Registers,
    pack: P,
    stretches: Vec<Stretch<R>>,
    bad_entries: usize,
}

impl<'elf, 'data, R, P> Compiler<'elf, 'data, R, P>
where
    R: Copy + PartialEq + Default,
    P: Fn(CallerRule) -> R,
{
    fn new(elf: &'elf Elf<'data>, pack: P) -> Self {
        Compiler { elf, registers: elf.arch().registers(), pack, stretches: Vec::new(), bad_entries: 0 }
    }

    fn run<'section, S>(&mut self, section: S, bases: &BaseAddresses)
    where
        S: UnwindSection<Bytes<'section>>,
        S::Offset: std::hash::Hash + Eq,
    {
        let mut cies = HashMap::new();
        let mut context = UnwindContext::new();
        let mut entries = section.entries(bases);
        loop {
            let partial = match entries.next() {
                Ok(Some(CieOrFde::Fde(partial))) => partial,
                Ok(Some(CieOrFde::Cie(_))) => continue,
                Ok(None) => break,
                // The length of this unwind entry is damaged, so the start of the next entry is unknown.
                // Stop here.
                Err(_) => {
                    self.bad_entries += 1;
                    break;
                }
            };
            let fde = partial.parse(|section, bases, offset| common_entry(&mut cies, section, bases, offset));
            match fde {
                Ok(fde) => self.entry(&section, bases, &mut context, &fde),
                Err(_) => self.bad_entries += 1,
            }
        }
    }

    /// Compiles the entries in `offsets`. `None`: the entries together are longer than the section
    /// .eh_frame, so the index that lists them must be damaged.
    fn run_listed(
        &mut self,
        section: &EhFrame<Bytes<'_>>,
        bases: &BaseAddresses,
        entries: &[EhFrameOffset],
        mut bytes: usize,
    ) -> Option<()> {
        let mut cies = HashMap::new();
        let mut context = UnwindContext::new();
        for &offset in entries {
            let fde = section.fde_from_offset(bases, offset, |section, bases, offset| {
                common_entry(&mut cies, section, bases, offset)
            });
            match fde {
                Ok(fde) => {
                    bytes = bytes.checked_sub(fde.entry_len())?;
                    self.entry(section, bases, &mut context, &fde);
                }
                Err(_) => self.bad_entries += 1,
            }
        }
        Some(())
    }

    fn entry<'section, S>(
        &mut self,
        section: &S,
        bases: &BaseAddresses,
        context: &mut UnwindContext<usize>,
        fde: &FrameDescriptionEntry<Bytes<'section>>,
    ) where
        S: UnwindSection<Bytes<'section>>,
    {
        // If the linker removed a function, the entry of this function may remain, with address 0 or length
        // 0. Skip the entry of a removed function.
        if fde.initial_address() == 0 || fde.len() == 0 {
            return;
        }
        if fde.is_signal_trampoline() {
            self.add(fde.initial_address(), fde.end_address(), CallerRule::Signal);
            return;
        }
        let first = self.stretches.len();
        let Ok(mut rows) = fde.rows(section, bases, context) else {
            self.bad_entries += 1;
            return;
        };
        loop {
            match rows.next_row() {
                Ok(Some(row)) => {
                    self.add(row.start_address(), row.end_address(), rule_of(row, self.registers))
                }
                Ok(None) => break,
                Err(_) => {
                    // If an unwind entry cannot be read to its end, the rows at its start may be wrong,
                    // too. So drop all rows of the entry.
                    self.stretches.truncate(first);
                    self.bad_entries += 1;
                    break;
                }
            }
        }
    }

    fn add(&mut self, start: u64, end: u64, rule: CallerRule) {
        let rule = (self.pack)(rule);
        let (Some(start), Some(end)) = (self.elf.offset_of(start), self.elf.offset_of(end)) else { return };
        match self.stretches.last_mut() {
            _ if start >= end => {}
            Some(last) if last.end == start && last.rule == rule => last.end = end,
            _ => self.stretches.push(Stretch { start, end, rule }),
        }
    }

    fn finish(mut self) -> UnwindTable<R> {
        // The entries of .eh_frame are in link order, so the ranges are nearly sorted already.
        self.stretches.sort_by_key(|stretch| stretch.start);
        let mut rows: Vec<Row<R>> = Vec::with_capacity(self.stretches.len() + self.stretches.len() / 4 + 1);
        let mut push = |start: u32, rule: R| match rows.last_mut() {
            Some(last) if last.rule == rule => {}
            Some(last) if last.start == start => last.rule = rule,
            _ => rows.push(Row { start, rule }),
        };
        let mut end = 0;
        for stretch in &self.stretches {
            if stretch.start > end {
                push(end, R::default());
            }
            push(stretch.start, stretch.rule);
            end = stretch.end;
        }
        if end > 0 {
            push(end, R::default());
        }
        rows.shrink_to_fit();
        UnwindTable { rows, bad_entries: self.bad_entries }
    }
}

/// Turns one row of call frame information into a rule.
fn rule_of(row: &UnwindTableRow<usize>, registers: Registers) -> CallerRule {
    match row.register(registers.return_address) {
        Some(RegisterRule::Undefined) => return CallerRule::End,
        Some(RegisterRule::Offset(at)) if at == registers.return_address_at => {}
        _ => return CallerRule::Unknown,
    }
    let saved_fp = match row.register(registers.fp) {
        None | Some(RegisterRule::SameValue) => None,
        Some(RegisterRule::Offset(offset)) => Some(-offset),
        Some(_) => return CallerRule::Unknown,
    };
    let CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else { return CallerRule::Unknown };
    let from = match register {
        register if register == registers.sp => Base::Sp,
        register if register == registers.fp => Base::Fp,
        _ => return CallerRule::Unknown,
    };
    CallerRule::Cfa { from, offset, saved_fp }
}
