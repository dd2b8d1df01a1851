//! Finds the wrappers, the unwind rules and the allocator functions of a file. The collector compiles each
//! file only once, for all processes of the run.

use crate::detour::Prefixes;
use crate::detour::entries::FileEntries;
use crate::rules::cache::{CACHE, CachedRules};
use crate::rules::code_options::CodeOptions;
use crate::rules::code_range::CodeRange;
use crate::rules::unwind::{self, UnwindTable};
use crate::rules::wrappers::{WHOLE_FILE, WrapperRange, wrapper_functions, wrapper_ranges};
use crate::watch::request::{RequestRange, WatchSet};
use edleak_binary::{BinaryFile, Options, SymbolFiles};
use edleak_session::site::Action;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The code ranges and rules that the collector compiled from one file. All offsets count from the first byte
/// of the file.
pub(crate) struct FileCode {
    /// The code ranges of the wrappers in the file.
    pub(crate) wrappers: Vec<CodeRange>,
    /// The allocator functions that the file defines.
    pub(crate) entries: FileEntries,
    /// The link-time address of the file's first byte.
    pub(crate) link_base: u64,
    /// The open file. The file stays open because the collector compiles the unwind rules later, and by then
    /// the path may lead to another file.
    file: Option<BinaryFile>,
    /// A number that differs between two files that have the same build ID.
    version: u64,
    rules: OnceLock<UnwindTable>,
}

/// The identity of a file: its path as the process sees it, and its build ID.
pub(crate) type FileKey = (String, Vec<u8>);
/// The identity of a file, and the version number of a watch set (the sites that the user asked to watch).
type AskedKey = (FileKey, u64);
/// A value that the first caller computes; all other callers wait for the value and then share it.
pub(crate) type Shared<T> = Arc<OnceLock<T>>;

/// The code ranges and rules of all files of this run, including files that another thread is still
/// compiling.
#[derive(Default)]
pub(crate) struct Compiled {
    code: Mutex<HashMap<FileKey, Shared<FileCode>>>,
    asked: Mutex<HashMap<AskedKey, Shared<Vec<RequestRange>>>>,
}

impl Compiled {
    /// Returns the code ranges and rules of a file. The first call for a file compiles the ranges and rules
    /// of this file. If another thread is compiling the file, the function waits for this thread.
    pub(crate) fn code(&self, key: FileKey, file: &Path, code_options: &CodeOptions) -> Shared<FileCode> {
        let (path, build_id) = key.clone();
        let place = {
            let mut code = self.code.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(code.entry(key).or_default())
        };
        let mut is_new = false;
        let code = place.get_or_init(|| {
            let (code, is_known) = FileCode::compile(&path, file, &build_id, code_options);
            is_new = !is_known;
            code
        });
        // Write the result into the rule cache only after `get_or_init` has returned, so that other threads
        // that need the result do not wait for the write.
        if is_new {
            code.keep(&build_id);
        }
        place
    }

    /// The code ranges, in one file, of the functions that the watch requests in `watch` name.
    pub(crate) fn asked(&self, key: &FileKey, file: &Path, watch: &WatchSet) -> Shared<Vec<RequestRange>> {
        let place = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(asked.entry((key.clone(), watch.version())).or_default())
        };
        place.get_or_init(|| {
            if !watch.names_functions() {
                return Vec::new(); // most runs request no functions, so no file is opened
            }
            let Ok(binary) = BinaryFile::open(file) else { return Vec::new() };
            watch.functions_in(&SymbolFiles::find(&key.0, binary, &Options::default()).functions())
        });
        place
    }

    /// Removes the code ranges of a watch set that is no longer used.
    pub(crate) fn forget(&self, version: u64) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, of), _| *of != version);
    }
}

impl FileCode {
    /// Compiles the module at `path` from its file at `file`, or reads the module's rules from the rule
    /// cache. The function also returns a flag; `false`: the caller should write the compiled rules into the
    /// rule cache.
    fn compile(path: &str, file: &Path, build_id: &[u8], code_options: &CodeOptions) -> (FileCode, bool) {
        let rules = OnceLock::new();
        let nothing = FileCode {
            wrappers: Vec::new(),
            entries: FileEntries::default(),
            link_base: 0,
            file: None,
            version: 0,
            rules: OnceLock::new(),
        };
        let Ok(binary) = BinaryFile::open(file) else { return (nothing, true) };
        let files = SymbolFiles::find(path, binary, &Options::default());
        // The collector reports patterns of the user that match no function. So if the user gives patterns,
        // the collector must search all functions in each run and cannot use the cache.
        let is_usual = code_options.wrappers.is_only_builtin()
            && code_options.allocators == Prefixes::default()
            && !code_options.walk_stacks;
        let cache = CACHE.as_ref().filter(|_| is_usual && files.binary().build_id() == build_id);
        let version = files.version();
        if let Some(CachedRules { wrappers, link_base }) =
            cache.and_then(|cache| cache.load(build_id, version))
        {
            let (entries, file) = (FileEntries::default(), Some(files.into_binary()));
            return (FileCode { wrappers, entries, link_base, file, version, rules }, true);
        }
        let Ok(elf) = files.binary().elf() else { return (nothing, true) };
        let named = files.functions();
        let functions = wrapper_functions(&elf, &named, &code_options.wrappers);
        let entries = FileEntries::of_module(&elf, &named, &code_options.allocators);
        let some;
        let table = if code_options.walk_stacks || functions == [WHOLE_FILE] {
            rules.get_or_init(|| unwind::compile(&elf))
        } else {
            some = unwind::compile_in(&elf, &functions);
            &some
        };
        let code_range = |range: WrapperRange| CodeRange {
            start: u64::from(range.start),
            end: u64::from(range.end),
            action: Action::step(range.rule),
        };
        let wrappers = wrapper_ranges(&elf, table, &functions).into_iter().map(code_range).collect();
        let link_base = elf.link_base();
        let file = rules.get().is_none().then(|| files.into_binary());
        // The rule cache does not store allocator functions. So the collector does not store a file with
        // allocator functions in the cache, and compiles such a file in each run.
        let is_kept = cache.is_some() && entries.entries.is_empty();
        (FileCode { wrappers, entries, link_base, file, version, rules }, !is_kept)
    }

    /// Stores the wrapper ranges of the file in the rule cache, for the next run of edleak-record.
    fn keep(&self, build_id: &[u8]) {
        if let Some(cache) = CACHE.as_ref() {
            let known = CachedRules { wrappers: self.wrappers.clone(), link_base: self.link_base };
            cache.store(build_id, self.version, &known);
        }
    }

    /// The unwind rules of all functions of the file. The first call of this function compiles the unwind
    /// rules. The collector does not compile these rules earlier, because it needs them only if the library
    /// walks stacks.
    pub(crate) fn rules(&self) -> &UnwindTable {
        self.rules.get_or_init(|| {
            let elf = self.file.as_ref().and_then(|file| file.elf().ok());
            elf.map_or_else(UnwindTable::default, |elf| unwind::compile(&elf))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::wrappers::WrapperSet;
    use edleak_binary::elf::Elf;

    // A software upgrade may replace the file of a running program.
    #[test]
    fn rules_are_those_of_the_file_that_was_loaded() {
        let own = std::fs::read("/proc/self/exe").expect("a process can read its own file");
        let expected = unwind::compile(&Elf::parse(&own).expect("it runs, so it is sound"));
        let path = std::env::temp_dir().join(format!("edleak-upgrade-{}", std::process::id()));
        std::fs::write(&path, &own).expect("writable");
        let code_options = CodeOptions {
            wrappers: WrapperSet::builtin(),
            allocators: Prefixes::default(),
            watch: WatchSet::new(),
            walk_stacks: false,
        };
        let (code, _) = FileCode::compile(&path.display().to_string(), &path, &[], &code_options);
        assert!(code.rules.get().is_none(), "nobody walks yet");
        let newer = path.with_extension("new");
        std::fs::write(&newer, b"not even a program").expect("writable");
        std::fs::rename(&newer, &path).expect("on the same file system");
        assert!(*code.rules() == expected && !expected.rows.is_empty());
        std::fs::remove_file(&path).expect("it is ours");
    }
}
