//! What the files of modules say, compiled once per file however often and by whomever it is loaded.

use crate::elf::{Elf, FileBytes};
use crate::guide::Wishes;
use crate::pieces::Piece;
use crate::unwind::UnwindTable;
use crate::watch::{Asked, WatchSet};
use crate::wrappers::{WHOLE, WrapperRange, wrapper_functions, wrapper_ranges};
use edleak_session::site::Action;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What one file says, in offsets from its first byte.
pub struct FileCode {
    /// What to step over.
    pub wrappers: Vec<Piece>,
    /// The link-time address of its first byte.
    pub link_base: u64,
    file: PathBuf,
    rules: OnceLock<UnwindTable>,
}

/// A file: its path as its process sees it, and its build ID.
pub type FileKey = (String, Vec<u8>);
/// A file, and the version of a watch set.
type AskedKey = (FileKey, u64);
/// What is made once, whoever asks first.
pub type Shared<T> = Arc<OnceLock<T>>;

/// What was or is being compiled in this run.
#[derive(Default)]
pub struct Compiled {
    code: Mutex<HashMap<FileKey, Shared<FileCode>>>,
    asked: Mutex<HashMap<AskedKey, Shared<Vec<Asked>>>>,
}

impl Compiled {
    /// The code of a file; waits for whoever compiles it already.
    pub fn code(&self, key: FileKey, file: &Path, wishes: &Wishes) -> Shared<FileCode> {
        let place = {
            let mut code = self.code.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(code.entry(key).or_default())
        };
        place.get_or_init(|| FileCode::compile(file, wishes));
        place
    }

    /// What a watch set asks for the functions of a file.
    pub fn asked(&self, key: &FileKey, file: &Path, watch: &WatchSet) -> Shared<Vec<Asked>> {
        let place = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(asked.entry((key.clone(), watch.version())).or_default())
        };
        place.get_or_init(|| {
            if !watch.names_functions() {
                return Vec::new(); // most often, and then the file need not be opened
            }
            let Ok(bytes) = FileBytes::open(file) else { return Vec::new() };
            Elf::parse(&bytes).map_or_else(|_| Vec::new(), |elf| watch.functions_in(&elf))
        });
        place
    }

    /// Forgets what was made for a watch set that is no longer in use.
    pub fn forget(&self, version: u64) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, of), _| *of != version);
    }
}

impl FileCode {
    fn compile(file: &Path, wishes: &Wishes) -> FileCode {
        let rules = OnceLock::new();
        let code =
            |wrappers, link_base, rules| FileCode { wrappers, link_base, file: file.to_owned(), rules };
        let Ok(bytes) = FileBytes::open(file) else { return code(Vec::new(), 0, rules) };
        let Ok(elf) = Elf::parse(&bytes) else { return code(Vec::new(), 0, rules) };
        let functions = wrapper_functions(&elf, &wishes.wrappers);
        let some;
        let table = if wishes.walks || functions == [WHOLE] {
            rules.get_or_init(|| UnwindTable::compile(&elf))
        } else {
            some = UnwindTable::compile_in(&elf, &functions);
            &some
        };
        let piece = |range: WrapperRange| Piece {
            start: u64::from(range.start),
            end: u64::from(range.end),
            action: Action::step(range.rule),
        };
        let wrappers = wrapper_ranges(&elf, table, &functions).into_iter().map(piece).collect();
        code(wrappers, elf.link_base(), rules)
    }

    /// How to find a caller, wherever in the file; compiled when it is first asked for, which is when stacks are walked.
    pub fn rules(&self) -> &UnwindTable {
        self.rules.get_or_init(|| {
            let Ok(bytes) = FileBytes::open(&self.file) else { return UnwindTable::default() };
            Elf::parse(&bytes).map_or_else(|_| UnwindTable::default(), |elf| UnwindTable::compile(&elf))
        })
    }
}
