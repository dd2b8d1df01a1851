//! Which code is where: the modules of a target, from its memory map and from what its loader did since.

use crate::sys::process::{self, Mapping};
use edleak_binary::file::{Elf, ElfError, FileBytes};
use edleak_format::{Module, ModuleId};
use std::collections::HashMap;
use std::path::PathBuf;

/// A module and when, counted in module events, its addresses were its own.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the trace says of it.
    pub module: Module,
    /// Module events before it was loaded; 0 for those found in the memory map.
    from_event: u32,
    /// Where its file can be read while the process lives.
    pub file: PathBuf,
}

/// The modules of one target.
pub struct Modules {
    pid: u32,
    loaded: Vec<Loaded>,
    /// Paths that are mapped and no modules: fonts, locales, databases.
    not_elf: HashMap<String, ()>,
}

/// What of a file matters here.
struct FileFacts {
    build_id: Vec<u8>,
    link_base: u64,
}

enum Facts {
    Elf(FileFacts),
    NotElf,
    Unreadable,
}

impl Modules {
    /// No modules yet.
    pub fn new(pid: u32) -> Modules {
        Modules { pid, loaded: Vec::new(), not_elf: HashMap::new() }
    }

    /// All modules, by id.
    pub fn all(&self) -> &[Loaded] {
        &self.loaded
    }

    /// Adds the modules of a memory map that are not known yet; returns the index of the first new one.
    pub fn add_maps(&mut self, maps: &[Mapping], now_ns: u64) -> usize {
        let first_new = self.loaded.len();
        let mut rest = maps;
        while let Some(first) = rest.first() {
            // The mappings of one module follow each other; the first holds the ELF header.
            let count = rest.iter().take_while(|mapping| mapping.path == first.path).count();
            let (group, after) = rest.split_at(count);
            rest = after;
            let end = group.iter().map(|mapping| mapping.end).max().unwrap_or(first.end);
            let is_file = !first.path.starts_with("/memfd:");
            if is_file && first.offset == 0 && !self.not_elf.contains_key(&first.path) {
                self.add(&first.path, first.start, None, end, 0, now_ns);
            }
        }
        first_new
    }

    /// Notes that the loader has mapped `path` with this load bias, as module event number `event`; returns the index of
    /// the module, new or back again.
    pub fn add_loaded(&mut self, path: &str, load_bias: u64, event: u32, now_ns: u64) -> Option<usize> {
        // The first byte of a shared object has link-time address 0, so its load bias is where it lies. Its extent
        // comes from the map if it is still there, else from the file.
        let mapped = process::read_maps(self.pid);
        // The loader knows it by the name it was asked for, which may be relative; the map by its path.
        let at_start = mapped.iter().find(|mapping| mapping.start == load_bias && mapping.offset == 0);
        let path = match at_start {
            Some(mapping) => mapping.path.clone(),
            // Gone again already.
            None => process::absolute_in(self.pid, path),
        };
        let path = path.as_str();
        let end = mapped
            .iter()
            .filter(|mapping| mapping.path == path && mapping.start >= load_bias)
            .map(|mapping| mapping.end)
            .max();
        let end = end.or_else(|| load_bias.checked_add(self.extent_of_file(path)?))?;
        self.add(path, load_bias, Some(load_bias), end, event, now_ns)
    }

    /// Notes that the module with this load bias was unloaded.
    pub fn unloaded(&mut self, load_bias: u64, now_ns: u64) -> Option<&Module> {
        let loaded = self.loaded.iter_mut().rev().find(|loaded| loaded.module.load_bias == load_bias)?;
        loaded.module.unloaded_ns = now_ns;
        Some(&loaded.module)
    }

    /// The module that was at `address` when `events` module events had happened.
    pub fn at(&self, address: u64, events: u32) -> Option<ModuleId> {
        let covers =
            |loaded: &&Loaded| (loaded.module.start..loaded.module.end).contains(&address.wrapping_sub(1));
        let mut covering = self.loaded.iter().rev().filter(covers);
        let newest = covering.clone().next()?;
        Some(covering.find(|loaded| loaded.from_event <= events).unwrap_or(newest).module.id)
    }

    fn add(
        &mut self,
        path: &str,
        start: u64,
        bias: Option<u64>,
        end: u64,
        event: u32,
        now_ns: u64,
    ) -> Option<usize> {
        let file = process::path_in(self.pid, path);
        let facts = match file_facts(&file) {
            Facts::Elf(facts) => facts,
            Facts::NotElf => {
                self.not_elf.insert(path.to_owned(), ());
                return None;
            }
            // Deleted meanwhile: its addresses are still worth a name.
            Facts::Unreadable => FileFacts { build_id: Vec::new(), link_base: 0 },
        };
        let load_bias = bias.unwrap_or(start.wrapping_sub(facts.link_base));
        // The newest that lies here. If it is the same one, still there or back again, it needs no other record: a program
        // that loads and unloads a plugin for weeks would have one each time.
        let newest = self.loaded.iter().rposition(|old| old.module.start < end && start < old.module.end);
        if let Some(index) = newest
            && let Module { path: old_path, build_id, start: old_start, unloaded_ns, .. } =
                &mut self.loaded[index].module
            && (&**old_path, &*build_id, *old_start) == (path, &facts.build_id, start)
        {
            let is_back = std::mem::take(unloaded_ns) != 0;
            return is_back.then_some(index);
        }
        if end <= start {
            return None;
        }
        let id = ModuleId(self.loaded.len() as u32);
        let module = Module {
            id,
            path: path.to_owned(),
            build_id: facts.build_id,
            load_bias,
            start,
            end,
            loaded_ns: now_ns,
            unloaded_ns: 0,
        };
        self.loaded.push(Loaded { module, from_event: event, file });
        Some(self.loaded.len() - 1)
    }

    fn extent_of_file(&self, path: &str) -> Option<u64> {
        let bytes = FileBytes::open(&process::path_in(self.pid, path)).ok()?;
        Some(Elf::parse(&bytes).ok()?.extent())
    }
}

fn file_facts(path: &std::path::Path) -> Facts {
    // A device or a pipe that is mapped must not be opened: that may block or have effects.
    let is_file = std::fs::metadata(path).map(|metadata| metadata.is_file());
    let bytes = match is_file {
        Ok(true) => FileBytes::open(path),
        Ok(false) => return Facts::NotElf,
        Err(_) => return Facts::Unreadable,
    };
    let Ok(bytes) = bytes else { return Facts::Unreadable };
    match Elf::parse(&bytes) {
        Ok(elf) => Facts::Elf(FileFacts {
            build_id: elf.build_id().unwrap_or_default().to_vec(),
            link_base: elf.link_base(),
        }),
        Err(ElfError::NotElf) => Facts::NotElf,
        Err(_) => Facts::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Modules {
        let mut modules = Modules::new(std::process::id());
        modules.add_maps(&process::read_maps(std::process::id()), 5);
        modules
    }

    #[test]
    fn code_of_this_test_lies_in_its_own_module() {
        let modules = own();
        let here = own as *const () as u64 + 1;
        let id = modules.at(here, 0).expect("this function is somewhere");
        let module = &modules.all()[id.0 as usize].module;
        assert_eq!(PathBuf::from(&module.path), std::env::current_exe().expect("Linux has /proc"));
        assert!(!module.build_id.is_empty() || module.load_bias > 0);
    }

    #[test]
    fn a_module_that_is_a_pipe_or_lies_beyond_all_memory_is_none() {
        let mut modules = Modules::new(std::process::id());
        let pipe = std::env::temp_dir().join(format!("edleak-pipe-{}", std::process::id()));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("coreutils are there");
        assert!(made.success());
        assert_eq!(modules.add_loaded(&pipe.display().to_string(), 0x1000, 1, 0), None);
        std::fs::remove_file(&pipe).expect("it was made here");
        let exe = std::env::current_exe().expect("Linux has /proc").display().to_string();
        assert_eq!(modules.add_loaded(&exe, u64::MAX - 1, 1, 0), None);
        assert!(modules.all().is_empty());
    }

    #[test]
    fn a_module_with_a_relative_name_that_is_gone_again_has_its_path() {
        let mut modules = Modules::new(std::process::id());
        let exe = std::env::current_exe().expect("Linux has /proc").display().to_string();
        let here = std::env::current_dir().expect("there is one");
        let relative = format!("{}{}", "../".repeat(here.components().count() - 1), &exe[1..]);
        let index = modules.add_loaded(&relative, 0x1000, 1, 0).expect("its file is there");
        let loaded = &modules.all()[index];
        assert!(loaded.module.path.starts_with('/') && loaded.module.path.ends_with(&exe), "{loaded:?}");
        assert!(loaded.file.starts_with("/proc"), "{loaded:?}");
    }

    #[test]
    fn a_map_read_twice_adds_nothing() {
        let mut modules = own();
        let count = modules.all().len();
        assert_eq!(modules.add_maps(&process::read_maps(std::process::id()), 9), count);
        assert_eq!(modules.all().len(), count);
    }

    #[test]
    fn a_module_that_comes_back_is_the_same_unless_another_was_there_meanwhile() {
        let mut modules = Modules::new(std::process::id());
        let libc = own().all().iter().find(|loaded| loaded.module.path.contains("libc.so")).cloned();
        let libc = libc.expect("this test is dynamically linked").module.path;
        let exe = std::env::current_exe().expect("Linux has /proc").display().to_string();
        let mut load = |path: &str, event| {
            let index = modules.add(path, 0x10_0000, Some(0x10_0000), 0x20_0000, event, 7);
            modules.unloaded(0x10_0000, 9);
            index
        };
        assert_eq!((load(&libc, 1), load(&libc, 3), load(&libc, 5)), (Some(0), Some(0), Some(0)));
        assert_eq!((load(&exe, 7), load(&libc, 9), load(&libc, 11)), (Some(1), Some(2), Some(2)));
        assert_eq!(modules.add(&libc, 0x10_0000, Some(0x10_0000), 0x20_0000, 13, 7), Some(2));
        assert_eq!(modules.add(&libc, 0x10_0000, Some(0x10_0000), 0x20_0000, 13, 7), None, "still there");
        assert!(
            modules.all().iter().all(|loaded| (loaded.module.unloaded_ns == 0) == (loaded.module.id.0 == 2))
        );
    }

    #[test]
    fn an_address_belongs_to_the_module_that_was_there_at_the_time() {
        let mut modules = Modules::new(std::process::id());
        let libc = own().all().iter().find(|loaded| loaded.module.path.contains("libc.so")).cloned();
        let libc = libc.expect("this test is dynamically linked").module;
        let exe = std::env::current_exe().expect("Linux has /proc").display().to_string();
        modules.add(&libc.path, 0x10_0000, Some(0x10_0000), 0x20_0000, 1, 0);
        modules.add(&exe, 0x10_0000, Some(0x10_0000), 0x20_0000, 3, 0);
        assert_eq!(modules.at(0x18_0000, 1), Some(ModuleId(0)));
        assert_eq!(modules.at(0x18_0000, 2), Some(ModuleId(0)));
        assert_eq!(modules.at(0x18_0000, 3), Some(ModuleId(1)));
        assert_eq!(modules.at(0x30_0000, 3), None);
    }
}
