//! Finds edleak's library in the memory of a process that already runs, asks the library to begin a
//! recording, and makes the library idle again at the end of the recording.
//!
//! The ELF notes of the library contain the version of the library and the address of its state
//! ([`edleak_session::idle`]). The collector reads the notes from the memory of the process and not from the
//! file. So the collector finds the library even if the file of the library was deleted or replaced, or is in
//! another mount namespace.

use crate::sys::maps;
use crate::sys::process;
use crate::sys::remote;
use edleak_session::detour::HOOKS;
use edleak_session::idle::{
    ADDRESS_BYTES, BEGINNING, COUNTING, DetourPlace, ENDING, Idle, LIMITS_STRIDE, Limits, MAGIC, MAX_PLACES,
    NOTE_OWNER, NOTE_TYPE, OFF, STARTING, WAKE,
};
use edleak_session::layout::{MAX_SHARDS, PAGE_BYTES};
use edleak_session::{IDENTITY, VERSION};
use std::io;
use std::mem::offset_of;
use std::ops::Range;
use std::path::Path;

/// Edleak's library in the memory of a process, with the addresses of its state.
#[derive(Clone, Debug)]
pub(crate) struct Library {
    pid: u32,
    /// The addresses at which the library is mapped.
    pub(crate) range: Range<u64>,
    idle: u64,
    phase: u64,
    limits: u64,
    /// Whether the library can count the allocations of the process.
    pub(crate) is_countable: bool,
    /// Number of seccomp filters that the process had when its library started; `None`: the number is
    /// unknown.
    pub(crate) filters: Option<u32>,
    /// Whether a collector has loaded the library into the process while the process already ran.
    pub(crate) is_late: bool,
}

/// The addresses that the collector needs to write detours into a process whose library was loaded by a
/// collector.
#[derive(Clone, Debug)]
pub(crate) struct Late {
    /// The address of the `malloc` function that the process uses.
    pub(crate) malloc: u64,
    /// The addresses of the library's functions for marks and for pools.
    pub(crate) annotations: [u64; 2],
    /// For each module with detours: the address of the module, and the address of the memory that contains
    /// the code of its detours.
    pub(crate) places: Vec<(u64, u64)>,
    /// The addresses of the library's hooks.
    pub(crate) hooks: [u64; HOOKS],
}

/// The reason why the collector finds no library that it can use in a process.
#[derive(Debug)]
pub(crate) enum NotFound {
    /// The collector cannot read the memory of the process.
    Memory(io::Error),
    /// The process has not mapped the library, or the library has not started yet.
    Absent,
    /// The library has another version than this edleak-record.
    Version(String),
}

impl From<io::Error> for NotFound {
    fn from(error: io::Error) -> NotFound {
        NotFound::Memory(error)
    }
}

impl Library {
    /// Finds edleak's library in the memory of a process.
    pub(crate) fn find(pid: u32) -> Result<Library, NotFound> {
        let maps = maps::files(&maps::read(pid, "maps")?);
        let mut other_version = None;
        let program = process::program(pid).unwrap_or_default();
        for first in maps.iter().filter(|mapping| mapping.offset == 0) {
            // The file of the library may have any name, but the name almost always contains `edleak`. A
            // program that contains the crate edleak-alloc contains the code of edleak's library, so search
            // the file of the program, too.
            let is_program = Path::new(&first.path) == program;
            if !first.path.contains("edleak") && !is_program {
                continue;
            }
            let same = maps.iter().filter(|mapping| mapping.path == first.path);
            let end = same.map(|mapping| mapping.end).max().unwrap_or(first.end);
            match notes_of(pid, first.start, end)? {
                Some(Notes { identity, .. }) if identity != IDENTITY.trim_end_matches('\0') => {
                    other_version = Some(identity).filter(|_| !is_program).or(other_version);
                }
                Some(Notes { idle: Some(idle), .. }) => {
                    let library = Library::at(pid, idle, first.start..end);
                    // The code of the crate edleak-alloc inside a program is not active in two cases: if the
                    // preload library is loaded, too, or if the program was started without `--idle`.
                    let counts = library.as_ref().is_ok_and(|library| library.is_countable);
                    if counts || !is_program {
                        return library;
                    }
                }
                _ => {}
            }
        }
        Err(other_version.map_or(NotFound::Absent, NotFound::Version))
    }

    fn at(pid: u32, idle: u64, range: Range<u64>) -> Result<Library, NotFound> {
        let u64_at = |offset: usize| remote::read_u64(pid, idle + offset as u64);
        let u32_at = |offset: usize| remote::read_u32(pid, idle + offset as u64);
        if u64_at(offset_of!(Idle, magic))? != MAGIC || u32_at(offset_of!(Idle, version))? != VERSION {
            return Err(NotFound::Absent); // the library has not started yet
        }
        let filters = u32_at(offset_of!(Idle, filters))?;
        Ok(Library {
            pid,
            range,
            idle,
            phase: u64_at(offset_of!(Idle, phase))?,
            limits: u64_at(offset_of!(Idle, limits))?,
            is_countable: u32_at(offset_of!(Idle, is_countable))? != 0,
            filters: (filters != u32::MAX).then_some(filters),
            is_late: u32_at(offset_of!(Idle, is_late))? != 0,
        })
    }

    /// Reads the addresses that the collector needs to write detours.
    pub(crate) fn late(&self) -> io::Result<Late> {
        let word = |offset: usize| remote::read_u64(self.pid, self.idle + offset as u64);
        let mut hooks = [0; HOOKS];
        for (index, hook) in hooks.iter_mut().enumerate() {
            *hook = word(offset_of!(Idle, hooks) + 8 * index)?;
        }
        let mut places = Vec::new();
        for index in 0..MAX_PLACES {
            let at = offset_of!(Idle, places) + index * size_of::<DetourPlace>();
            let module = word(at + offset_of!(DetourPlace, module))?;
            if module != 0 {
                places.push((module, word(at + offset_of!(DetourPlace, address))?));
            }
        }
        Ok(Late {
            malloc: word(offset_of!(Idle, malloc))?,
            annotations: [word(offset_of!(Idle, set_mark))?, word(offset_of!(Idle, note_pool))?],
            places,
            hooks,
        })
    }

    /// Writes into the library, for each module, the address of the memory for the code of the module's
    /// detours.
    pub(crate) fn set_places(&self, places: &[(u64, u64)]) -> io::Result<()> {
        let places = places.iter().take(MAX_PLACES);
        let bytes: Vec<u8> = places
            .flat_map(|(module, address)| [module.to_ne_bytes(), address.to_ne_bytes()])
            .flatten()
            .collect();
        remote::write(self.pid, &[(self.idle + offset_of!(Idle, places) as u64, &bytes)])
    }

    /// The process ID.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The phase of the library, such as `COUNTING` or `OFF`.
    pub(crate) fn phase(&self) -> io::Result<u32> {
        remote::read_u32(self.pid, self.phase)
    }

    /// The error number that the library stored when it last failed to begin a recording.
    pub(crate) fn failure(&self) -> io::Result<u32> {
        remote::read_u32(self.pid, self.idle + offset_of!(Idle, failure) as u64)
    }

    /// The address of the control page in the latest request to begin a recording.
    pub(crate) fn control(&self) -> io::Result<String> {
        let mut bytes = [0; ADDRESS_BYTES];
        remote::read(self.pid, self.idle + offset_of!(Idle, address) as u64, &mut bytes)?;
        let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// The address of the header of the latest session to which the process attached; `None`: the process has
    /// never attached to a session.
    pub(crate) fn header(&self) -> io::Result<Option<u64>> {
        let address = remote::read_u64(self.pid, self.idle + offset_of!(Idle, header) as u64)?;
        Ok(Some(address).filter(|&address| address != 0))
    }

    /// Asks the library to begin a recording whose control page has this address.
    pub(crate) fn wake(&self, control: &str) -> io::Result<()> {
        let mut address = control.as_bytes().to_vec();
        address.push(0);
        if address.len() > ADDRESS_BYTES {
            return Err(io::Error::other("the path of the control page is too long"));
        }
        let place = self.idle + offset_of!(Idle, address) as u64;
        remote::write(self.pid, &[(place, &address)])?;
        remote::write(self.pid, &[(self.phase, &WAKE.to_ne_bytes())])
    }

    /// Cancels a request to begin a recording. If a thread of the process has already seen the request, the
    /// function has no effect.
    pub(crate) fn cancel(&self) -> io::Result<()> {
        if self.phase()? == WAKE {
            remote::write(self.pid, &[(self.phase, &OFF.to_ne_bytes())])?;
        }
        Ok(())
    }

    /// Changes the phase from `ENDING` to `OFF`, so that no thread sees the phase `ENDING` any more.
    /// Normally, a thread of the process changes the phase at the end of a recording.
    pub(crate) fn finish_ending(&self) -> io::Result<()> {
        if self.phase()? == ENDING {
            remote::write(self.pid, &[(self.phase, &OFF.to_ne_bytes())])?;
        }
        Ok(())
    }

    /// Makes the library idle: every entry point then only forwards its calls. Returns whether the library
    /// was counting before. If a thread is inside a function of the library while the collector makes the
    /// library idle, this thread may still count one allocation or free.
    pub(crate) fn end(&self) -> io::Result<bool> {
        match self.phase()? {
            COUNTING => {}
            WAKE => return self.cancel().map(|()| false),
            _ => return Ok(false),
        }
        remote::write(self.pid, &[(self.phase, &ENDING.to_ne_bytes())])?;
        self.write_limits(Limits::default())?;
        Ok(true)
    }

    /// Lets the threads of the process use the fast path. The collector may call this function only if no
    /// thread can hold a pointer into an earlier session.
    pub(crate) fn open(&self, shards: usize) -> io::Result<()> {
        if self.phase()? != COUNTING {
            return Ok(());
        }
        // Skip the last shard: it belongs to no thread, so no thread needs the fast path for it.
        self.write_limits_of(Limits::OPEN, shards.saturating_sub(1))
    }

    fn write_limits(&self, limits: Limits) -> io::Result<()> {
        self.write_limits_of(limits, MAX_SHARDS)
    }

    fn write_limits_of(&self, limits: Limits, threads: usize) -> io::Result<()> {
        let bytes = limits.to_bytes();
        let place = |index: usize| self.limits + (index * LIMITS_STRIDE) as u64;
        let pieces: Vec<_> =
            (0..threads.min(MAX_SHARDS)).map(|index| (place(index), bytes.as_slice())).collect();
        remote::write(self.pid, &pieces)
    }
}

/// Whether the library counts nothing and a recording may begin.
pub(crate) fn is_off(phase: u32) -> bool {
    matches!(phase, OFF | ENDING)
}

/// Whether a thread of the process is just attaching to a session.
pub(crate) fn is_starting(phase: u32) -> bool {
    matches!(phase, STARTING | BEGINNING)
}

/// The contents of edleak's ELF notes in a mapped file.
struct Notes {
    /// The text from the ELF note that contains the version of the library.
    identity: String,
    /// The address of the library's state; `None`: an older version of the library, which has no such state.
    idle: Option<u64>,
}

/// Reads edleak's notes from the ELF file that is mapped at `start`; `None`: the file is not edleak's
/// library.
fn notes_of(pid: u32, start: u64, end: u64) -> io::Result<Option<Notes>> {
    const PT_NOTE: u32 = 4;
    const PROGRAM_HEADER_BYTES: usize = 56;
    const MOST_NOTE_BYTES: u64 = 1 << 16;
    let mut head = vec![0; PAGE_BYTES.min((end - start) as usize)];
    remote::read(pid, start, &mut head)?;
    if !head.starts_with(b"\x7fELF\x02") {
        return Ok(None);
    }
    let (headers, count) = (word_at(&head, 32) as usize, word_at(&head, 56) as u16 as usize);
    let mut notes = Notes { identity: String::new(), idle: None };
    for index in 0..count {
        let at = headers.saturating_add(index * PROGRAM_HEADER_BYTES);
        let Some(header) = head.get(at..at.saturating_add(PROGRAM_HEADER_BYTES)) else { break };
        let (address, bytes) = (word_at(header, 16), word_at(header, 32));
        let is_inside = address.checked_add(bytes).is_some_and(|note_end| note_end <= end - start);
        if word_at(header, 0) as u32 != PT_NOTE || !is_inside || bytes > MOST_NOTE_BYTES {
            continue;
        }
        let mut content = vec![0; bytes as usize];
        remote::read(pid, start + address, &mut content)?;
        read_notes(&content, start + address, &mut notes);
    }
    Ok(Some(notes).filter(|notes| notes.identity.starts_with("edleak-preload ")))
}

/// Reads edleak's notes from a segment of notes that is mapped at `address`.
fn read_notes(segment: &[u8], address: u64, notes: &mut Notes) {
    const IDENTITY_TYPE: u32 = 1;
    const HEADER_BYTES: usize = 12;
    let number = |at: usize| {
        let bytes = segment.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let mut at = 0;
    while let (Some(owner_bytes), Some(bytes), Some(kind)) = (number(at), number(at + 4), number(at + 8)) {
        let owner_at = at + HEADER_BYTES;
        let content_at = owner_at + (owner_bytes as usize).next_multiple_of(4);
        let owner = segment.get(owner_at..owner_at + owner_bytes as usize);
        let content = segment.get(content_at..content_at + bytes as usize);
        let (Some(owner), Some(content)) = (owner, content) else { return };
        if owner == NOTE_OWNER {
            if kind == IDENTITY_TYPE {
                let text = content.split(|&byte| byte == 0).next().unwrap_or_default();
                notes.identity = String::from_utf8_lossy(text).into_owned();
            } else if kind == NOTE_TYPE
                && let Some(distance) = number(content_at)
            {
                let place = address + content_at as u64;
                notes.idle = place.checked_add_signed(i64::from(distance.cast_signed()));
            }
        }
        at = content_at + (bytes as usize).next_multiple_of(4);
    }
}

/// The 8 bytes at an offset of `bytes` as a number, or 0 if the offset is beyond the end of `bytes`.
fn word_at(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..at.saturating_add(8)).and_then(|word| word.try_into().ok());
    word.map_or(0, u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    fn note(owner: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for number in [owner.len() as u32, content.len() as u32, kind] {
            note.extend(number.to_ne_bytes());
        }
        for part in [owner, content] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn notes_give_version_and_place() {
        let mut segment = note(b"GNU\0", 3, &[1; 20]);
        segment.extend(note(NOTE_OWNER, 1, b"edleak-preload 1.2\0\0\0\0"));
        let place = 0x7000 + segment.len() as u64 + 20;
        segment.extend(note(NOTE_OWNER, NOTE_TYPE, &(-0x100i32).to_ne_bytes()));
        let mut notes = Notes { identity: String::new(), idle: None };
        read_notes(&segment, 0x7000, &mut notes);
        assert_eq!((notes.identity.as_str(), notes.idle), ("edleak-preload 1.2", Some(place - 0x100)));
        for cut in 0..segment.len() {
            read_notes(&segment[..cut], 0x7000, &mut Notes { identity: String::new(), idle: None });
        }
    }

    #[test]
    fn process_without_the_library_has_none() {
        // The memory map of this process changes while other tests run, so the test looks at `cat`. After
        // `cat` has answered, its loader has mapped everything.
        let mut cat = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("every system has it");
        let (mut to, mut from) = (cat.stdin.take().expect("piped"), cat.stdout.take().expect("piped"));
        to.write_all(b"x").expect("it reads");
        from.read_exact(&mut [0]).expect("it answers");
        assert!(matches!(Library::find(cat.id()), Err(NotFound::Absent)));
        drop(to);
        assert!(cat.wait().expect("it ends").success());
    }
}
