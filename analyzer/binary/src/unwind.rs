//! .eh_frame compiled to rules: a sorted table from code offset to the packed rule that finds the caller there.
//!
//! A row holds from its offset to that of the next one. Code that no entry describes, and entries that a [`Rule`] cannot
//! express (a CFA from another register or an expression, as in the PLT or in functions that realign their stack), have
//! [`Rule::UNKNOWN`]. Rows apply to a pc: a walk looks up return address − 1, and only the interrupted pc below a
//! signal frame as it is.

use crate::file::Elf;
use edleak_session::rule::{Kind, Rule};
use gimli::{
    BaseAddresses, CfaRule, CieOrFde, CommonInformationEntry, DebugFrame, EhFrame, EhFrameHdr, EhFrameOffset,
    EndianSlice, FrameDescriptionEntry, LittleEndian, RegisterRule, UnwindContext, UnwindSection,
    UnwindTableRow, X86_64,
};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

type Bytes<'data> = EndianSlice<'data, LittleEndian>;

/// One row: the rule from `start` on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Offset from the file's link-time base.
    pub start: u32,
    /// How to find the caller of a frame whose pc lies in this row.
    pub rule: Rule,
}

/// The rules of one file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UnwindTable {
    /// The rows, sorted by start; no two neighbours have the same rule.
    pub rows: Vec<Row>,
    /// Entries that could not be read; their code has no rule.
    pub bad_entries: usize,
}

/// A stretch of code with one rule, before sorting.
#[derive(Clone, Copy)]
struct Stretch {
    start: u32,
    end: u32,
    rule: Rule,
}

impl UnwindTable {
    /// Compiles the unwind information of `elf`: .eh_frame, or .debug_frame where there is none. Empty where there is
    /// neither.
    pub fn compile(elf: &Elf<'_>) -> UnwindTable {
        let mut compiler = Compiler { elf, stretches: Vec::new(), bad_entries: 0 };
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

    /// The same for some functions only: sorted ranges without overlap. Whatever else it says is true, too.
    ///
    /// The sorted index of a large program leads to the entries of a few functions in a fraction of the time that reading all takes;
    /// without an index all are read.
    pub fn compile_in(elf: &Elf<'_>, functions: &[Range<u32>]) -> UnwindTable {
        let listed = listed_entries(elf, functions).zip(elf.section(".eh_frame"));
        let Some((offsets, (address, data))) = listed else { return UnwindTable::compile(elf) };
        let mut compiler = Compiler { elf, stretches: Vec::new(), bad_entries: 0 };
        let section = EhFrame::new(&data, LittleEndian);
        match compiler.run_listed(&section, &eh_bases(elf, address), &offsets, data.len()) {
            Some(()) => compiler.finish(),
            None => UnwindTable::compile(elf),
        }
    }

    /// The rule for code at `offset`.
    pub fn lookup(&self, offset: u32) -> Rule {
        let after = self.rows.partition_point(|row| row.start <= offset);
        after.checked_sub(1).and_then(|row| self.rows.get(row)).map_or(Rule::UNKNOWN, |row| row.rule)
    }

    /// The stretches of `start..end`, each with its rule; those without one are left out.
    pub fn known_in(&self, start: u32, end: u32) -> impl Iterator<Item = (u32, u32, Rule)> + '_ {
        let first = self.rows.partition_point(|row| row.start <= start).saturating_sub(1);
        let rows = self.rows.get(first..).unwrap_or_default();
        rows.iter().enumerate().take_while(move |(_, row)| row.start < end).filter_map(move |(i, row)| {
            let next = rows.get(i + 1).map_or(u32::MAX, |next| next.start);
            let (from, to) = (row.start.max(start), next.min(end));
            (from < to && row.rule.kind() != Kind::Unknown).then_some((from, to, row.rule))
        })
    }
}

/// What pointers in .eh_frame can be relative to. (Nothing on x86-64 is relative to text or the GOT.)
fn eh_bases(elf: &Elf<'_>, eh_frame: u64) -> BaseAddresses {
    let bases = BaseAddresses::default().set_eh_frame(eh_frame);
    match elf.eh_frame_hdr() {
        Some(address) => bases.set_eh_frame_hdr(address),
        None => bases,
    }
}

/// Address and bytes of .eh_frame in a file without section headers.
fn eh_frame_from_header<'data>(elf: &Elf<'data>) -> Option<(u64, &'data [u8])> {
    let address = elf.eh_frame_hdr()?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(address);
    let header = EhFrameHdr::new(elf.loaded_from(address)?, LittleEndian).parse(&bases, 8).ok()?;
    let eh_frame = header.eh_frame_ptr().direct().ok()?;
    Some((eh_frame, elf.loaded_from(eh_frame)?))
}

/// The entries that overlap some functions, from the index in .eh_frame_hdr; `None` if there is none.
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
        // An entry ends before the next one begins; how long the last one is does not matter.
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

/// The common entry at an offset, parsed once for all that refer to it.
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

struct Compiler<'elf, 'data> {
    elf: &'elf Elf<'data>,
    stretches: Vec<Stretch>,
    bad_entries: usize,
}

impl Compiler<'_, '_> {
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
                // The entry's length is unreadable, so what follows cannot be found either.
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

    /// `None`: together they are longer than their section, so the index is no index.
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
        // The linker leaves entries of discarded functions behind, at address 0 or with nothing in them.
        if fde.initial_address() == 0 || fde.len() == 0 {
            return;
        }
        if fde.is_signal_trampoline() {
            self.add(fde.initial_address(), fde.end_address(), Rule::SIGNAL);
            return;
        }
        let first = self.stretches.len();
        let Ok(mut rows) = fde.rows(section, bases, context) else {
            self.bad_entries += 1;
            return;
        };
        loop {
            match rows.next_row() {
                Ok(Some(row)) => self.add(row.start_address(), row.end_address(), rule_of(row)),
                Ok(None) => break,
                Err(_) => {
                    // Half an entry would be trusted where it must not be.
                    self.stretches.truncate(first);
                    self.bad_entries += 1;
                    break;
                }
            }
        }
    }

    fn add(&mut self, start: u64, end: u64, rule: Rule) {
        let (Some(start), Some(end)) = (self.elf.offset_of(start), self.elf.offset_of(end)) else { return };
        match self.stretches.last_mut() {
            _ if start >= end => {}
            Some(last) if last.end == start && last.rule == rule => last.end = end,
            _ => self.stretches.push(Stretch { start, end, rule }),
        }
    }

    fn finish(mut self) -> UnwindTable {
        // Linkers that sort .eh_frame_hdr leave .eh_frame itself in link order, which is nearly sorted.
        self.stretches.sort_by_key(|stretch| stretch.start);
        let mut rows: Vec<Row> = Vec::with_capacity(self.stretches.len() + self.stretches.len() / 4 + 1);
        let mut push = |start: u32, rule: Rule| match rows.last_mut() {
            Some(last) if last.rule == rule => {}
            Some(last) if last.start == start => last.rule = rule,
            _ => rows.push(Row { start, rule }),
        };
        let mut end = 0;
        for stretch in &self.stretches {
            if stretch.start > end {
                push(end, Rule::UNKNOWN);
            }
            push(stretch.start, stretch.rule);
            end = stretch.end;
        }
        if end > 0 {
            push(end, Rule::UNKNOWN);
        }
        rows.shrink_to_fit();
        UnwindTable { rows, bad_entries: self.bad_entries }
    }
}

/// One row of call frame information as a rule.
fn rule_of(row: &UnwindTableRow<usize>) -> Rule {
    match row.register(X86_64::RA) {
        Some(RegisterRule::Undefined) => return Rule::END,
        Some(RegisterRule::Offset(-8)) => {}
        _ => return Rule::UNKNOWN,
    }
    let fp_offset = match row.register(X86_64::RBP) {
        None | Some(RegisterRule::SameValue) => None,
        Some(RegisterRule::Offset(offset)) => Some(-offset),
        Some(_) => return Rule::UNKNOWN,
    };
    let rule = match row.cfa() {
        CfaRule::RegisterAndOffset { register: X86_64::RSP, offset } => {
            Rule::pack(Kind::Sp, *offset, fp_offset)
        }
        CfaRule::RegisterAndOffset { register: X86_64::RBP, offset } => {
            Rule::pack(Kind::Fp, *offset, fp_offset)
        }
        _ => None,
    };
    rule.unwrap_or(Rule::UNKNOWN)
}
