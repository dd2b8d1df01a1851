//! The modules of a target and their address ranges. The collector learns the modules from the target's
//! memory map and from the events of the target's loader.

use crate::rules::file_facts::{FileFacts, Kind, kind};
use crate::sys::maps::{self, Mapping};
use crate::sys::process;
use edleak_binary::elf::Elf;
use edleak_binary::file_bytes::FileBytes;
use edleak_format::{Module, ModuleId};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;

/// A module of a target, with the numbers of its first and its latest load event.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// The module in the form in which the trace stores it.
    pub(crate) module: Module,
    /// The number of the first event that loaded the module; 0: the collector found the module in the memory
    /// map.
    first_event: u32,
    /// The number of the latest event that loaded the module.
    pub(crate) latest_event: u32,
    /// The number of the latest event that unloaded the module.
    unloaded_event: u32,
    /// The path through which the collector can read the module's file while the process lives.
    pub(crate) file: PathBuf,
}

/// A report of the target that its loader has mapped a module.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// The name that the loader opened; the name may be relative.
    pub(crate) name: String,
    /// The load bias: the address of a byte of the module in the process, minus the link-time address of this
    /// byte.
    pub(crate) load_bias: u64,
    /// The address after the last byte of the module; 0: unknown.
    pub(crate) end: u64,
    /// The build ID of the module; empty: the module has no build ID.
    pub(crate) build_id: Vec<u8>,
    /// The number of this event; the target numbers all loads and unloads of modules.
    pub(crate) number: u32,
}

/// Maximum number of module loads that the collector remembers. If several modules were loaded at one address
/// in turn, these loads tell which of these modules contains a site. The target can report at most this
/// number of loads between two slices, so the collector needs to remember no more loads.
const MAX_LOADS: usize = edleak_session::event::MAX_EVENTS;

/// The modules of one target.
#[derive(Clone)]
pub(crate) struct Modules {
    pid: u32,
    loaded: Vec<Loaded>,
    /// The latest loads of modules, oldest first. For each load: the number of its event, and the index of
    /// the module.
    loads: VecDeque<(u32, usize)>,
    /// Paths of mapped files that are not modules.
    not_elf: HashMap<String, ()>,
}

/// A module that the collector found in the memory map or through a load event.
struct Found<'a> {
    path: &'a str,
    start: u64,
    /// The load bias; `None`: the collector computes the load bias from `start` and from the file.
    bias: Option<u64>,
    end: u64,
    /// The number of the event that reported the module; 0: the collector found the module in the memory map.
    event: u32,
}

impl Modules {
    /// Makes an empty list of modules for the process `pid`.
    pub(crate) fn new(pid: u32) -> Modules {
        Modules { pid, loaded: Vec::new(), loads: VecDeque::new(), not_elf: HashMap::new() }
    }

    /// The modules of a child that this process forked after it had reported `events` loads and unloads of
    /// modules. In the child's own session, the numbers of module events begin anew.
    pub(crate) fn at_fork(&self, events: u32) -> Modules {
        let is_before = |event: u32| events.wrapping_sub(event) as i32 >= 0;
        let is_there = |one: &&Loaded| {
            is_before(one.first_event) && (one.module.unloaded_ns == 0 || !is_before(one.unloaded_event))
        };
        let of_child = |(index, one): (usize, &Loaded)| {
            let id = ModuleId(index as u32);
            let module = Module { id, loaded_ns: 0, unloaded_ns: 0, ..one.module.clone() };
            Loaded { module, first_event: 0, latest_event: 0, unloaded_event: 0, file: one.file.clone() }
        };
        let loaded = self.loaded.iter().filter(is_there).enumerate().map(of_child).collect();
        Modules { pid: self.pid, loaded, loads: VecDeque::new(), not_elf: self.not_elf.clone() }
    }

    /// Uses this list for the process `pid`, which has the same modules as the process that the list
    /// described so far.
    pub(crate) fn of_process(mut self, pid: u32) -> Modules {
        self.pid = pid;
        let shows_files = process::shows_its_files(pid, self.loaded.iter().map(|one| &*one.module.path));
        for one in &mut self.loaded {
            let path = &one.module.path;
            let path = if shows_files { format!("/proc/{pid}/root{path}") } else { path.clone() };
            one.file = PathBuf::from(path);
        }
        self
    }

    /// All modules, by id.
    pub(crate) fn all(&self) -> &[Loaded] {
        &self.loaded
    }

    /// Adds those modules of a memory map that are not in this list yet. Returns the index of the first new
    /// module.
    pub(crate) fn add_maps(&mut self, maps: &[Mapping], now_ns: u64) -> usize {
        let first_new = self.loaded.len();
        let mut rest = maps;
        while let Some(first) = rest.first() {
            // The mappings of one module are adjacent; the first mapping contains the ELF header.
            let count = rest.iter().take_while(|mapping| mapping.path == first.path).count();
            let (group, after) = rest.split_at(count);
            rest = after;
            let end = group.iter().map(|mapping| mapping.end).max().unwrap_or(first.end);
            let is_file = !first.path.starts_with("/memfd:");
            // A file without code (fonts, locales, databases) is not a module, so the collector does not open
            // such a file.
            let has_code = group.iter().any(|mapping| mapping.is_code);
            if is_file && has_code && first.offset == 0 && !self.not_elf.contains_key(&first.path) {
                let found = Found { path: &first.path, start: first.start, bias: None, end, event: 0 };
                self.add(&found, None, now_ns);
            }
        }
        first_new
    }

    /// Adds a module that the loader has mapped. Returns the index of the module if the module is new or was
    /// loaded again. `None`: the list already contained the module, and the module was never unloaded.
    ///
    /// The function takes the name and the build ID from the event and not from the memory map, because the
    /// memory map may already show another module at this address.
    pub(crate) fn add_loaded(&mut self, event: &Event, now_ns: u64) -> Option<usize> {
        let path = self.path_of(event);
        let end = match event.end {
            0 => event.load_bias.checked_add(self.extent_of_file(&path)?)?,
            end => end,
        };
        // The first byte of a shared object has link-time address 0, so the load bias of a shared object is
        // its start address.
        let found = Found {
            path: &path,
            start: event.load_bias,
            bias: Some(event.load_bias),
            end,
            event: event.number,
        };
        let build_id = (!event.build_id.is_empty()).then(|| event.build_id.clone());
        self.add(&found, build_id, now_ns)
    }

    /// The path of the module in an event. The event contains the name with which the program requested the
    /// module, which may be relative or a symbolic link; the memory map contains the real path. If the
    /// requested name and the real path lead to the same file, the function returns the real path; otherwise,
    /// it returns the requested name as an absolute path.
    fn path_of(&self, event: &Event) -> String {
        let asked = process::absolute_in(self.pid, &event.name);
        let mapped = maps::files_of(self.pid);
        let at_start = mapped.iter().find(|mapping| mapping.start == event.load_bias && mapping.offset == 0);
        let Some(mapping) = at_start.filter(|mapping| mapping.path != asked) else { return asked };
        let seen = |path: &str| process::path_in(self.pid, path);
        match process::is_same_file(&seen(&asked), &seen(&mapping.path)) {
            true => mapping.path.clone(),
            false => asked,
        }
    }

    /// Marks the module with this load bias as unloaded by the module event number `event`.
    pub(crate) fn unloaded(&mut self, load_bias: u64, event: u32, now_ns: u64) -> Option<&Module> {
        let here = self.loaded.iter_mut().filter(|loaded| loaded.module.load_bias == load_bias);
        let loaded = here.max_by_key(|loaded| (loaded.latest_event, loaded.module.id.0))?;
        loaded.module.unloaded_ns = now_ns;
        loaded.unloaded_event = event;
        Some(&loaded.module)
    }

    /// The module that contained the return address `address` when the target had reported `events` module
    /// events.
    pub(crate) fn at(&self, address: u64, events: u32) -> Option<ModuleId> {
        let covers =
            |loaded: &&Loaded| (loaded.module.start..loaded.module.end).contains(&address.wrapping_sub(1));
        let mut covering = self.loaded.iter().filter(covers);
        let (first, second) = (covering.next()?, covering.next());
        let Some(second) = second else { return Some(first.module.id) };
        let all = || [first, second].into_iter().chain(self.loaded.iter().filter(covers).skip(2));
        // For a site in a module, the target stores the number of the module's first load event as `events`.
        let by_name = all().find(|loaded| loaded.first_event == events && events != 0);
        let by_load = || {
            let before = self.loads.iter().rev().filter(|(event, _)| *event <= events);
            before.map(|(_, index)| &self.loaded[*index]).find(covers)
        };
        let by_age = || all().filter(|loaded| loaded.first_event <= events).last();
        Some(by_name.or_else(by_load).or_else(by_age).unwrap_or(first).module.id)
    }

    /// Adds a module, or notes that a known module was loaded again. `build_id` comes from the memory of the
    /// target; `None`: the target reported no build ID, so the function uses the build ID in the file.
    fn add(&mut self, found: &Found<'_>, build_id: Option<Vec<u8>>, now_ns: u64) -> Option<usize> {
        let Found { path, start, bias, end, event } = *found;
        let file = process::path_in(self.pid, path);
        let mut facts = match kind(&file) {
            Kind::Elf(facts) => facts,
            // A build ID that the target reported proves that the loader mapped an ELF file; if the file is
            // not ELF now, another file has replaced it. If the target reported no build ID, the mapped file
            // is not a module.
            Kind::NotElf if build_id.is_none() => {
                self.not_elf.insert(path.to_owned(), ());
                return None;
            }
            // Another process may have deleted or replaced the file of the module. The collector still
            // records the module, so that the trace has a name for it.
            Kind::NotElf | Kind::Unreadable => FileFacts { build_id: Vec::new(), link_base: 0 },
        };
        facts.build_id = build_id.unwrap_or(facts.build_id);
        let load_bias = bias.unwrap_or(start.wrapping_sub(facts.link_base));
        // A module that is still loaded or was loaded again needs no further record in the trace. If each
        // load added a record, a program that reloads plugins for weeks would fill the trace with these
        // records. A copy of a plugin under another name counts as the same module.
        let is_same = |old: &Loaded| {
            let Module { path: old_path, build_id, start: old_start, .. } = &old.module;
            let is_same_file = match facts.build_id.is_empty() {
                true => build_id.is_empty() && old_path == path,
                false => *build_id == facts.build_id,
            };
            *old_start == start && is_same_file
        };
        let overlaps = |old: &Loaded| old.module.start < end && start < old.module.end;
        let known = match event {
            // A memory map shows the current state, so the module in the map can only be the newest known
            // module in this address range.
            0 => self
                .loaded
                .iter()
                .enumerate()
                .filter(|(_, old)| overlaps(old))
                .max_by_key(|(index, old)| (old.latest_event, *index)),
            _ => self.loaded.iter().enumerate().rfind(|(_, old)| is_same(old)),
        };
        if let Some(index) = known.filter(|(_, old)| is_same(old)).map(|(index, _)| index) {
            let old = &mut self.loaded[index];
            if event != 0 {
                old.latest_event = event;
                old.first_event = if old.first_event == 0 { event } else { old.first_event };
                self.note_load(event, index);
            }
            let is_back = std::mem::take(&mut self.loaded[index].module.unloaded_ns) != 0;
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
        self.loaded.push(Loaded { module, first_event: event, latest_event: event, unloaded_event: 0, file });
        if event != 0 {
            self.note_load(event, self.loaded.len() - 1);
        }
        Some(self.loaded.len() - 1)
    }

    fn note_load(&mut self, event: u32, index: usize) {
        if self.loads.len() == MAX_LOADS {
            self.loads.pop_front();
        }
        self.loads.push_back((event, index));
    }

    fn extent_of_file(&self, path: &str) -> Option<u64> {
        let bytes = FileBytes::open(&process::path_in(self.pid, path)).ok()?;
        Some(Elf::parse(&bytes).ok()?.extent())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Modules {
        let mut modules = Modules::new(std::process::id());
        modules.add_maps(&maps::files_of(std::process::id()), 5);
        modules
    }

    #[test]
    fn code_of_a_program_lies_in_its_module() {
        let modules = own();
        let here = own as *const () as u64 + 1;
        let id = modules.at(here, 0).expect("this function is somewhere");
        let module = &modules.all()[id.0 as usize].module;
        assert_eq!(PathBuf::from(&module.path), std::env::current_exe().expect("Linux has /proc"));
        assert!(!module.build_id.is_empty() || module.load_bias > 0);
    }

    fn event(name: &str, load_bias: u64, number: u32) -> Event {
        Event { name: name.into(), load_bias, end: 0, build_id: Vec::new(), number }
    }

    #[test]
    fn a_module_that_is_a_pipe_or_lies_beyond_all_memory_is_none() {
        let mut modules = Modules::new(std::process::id());
        let pipe = std::env::temp_dir().join(format!("edleak-pipe-{}", std::process::id()));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("coreutils are there");
        assert!(made.success());
        assert_eq!(modules.add_loaded(&event(&pipe.display().to_string(), 0x1000, 1), 0), None);
        std::fs::remove_file(&pipe).expect("it was made here");
        let exe = std::env::current_exe().expect("Linux has /proc").display().to_string();
        assert_eq!(modules.add_loaded(&event(&exe, u64::MAX - 1, 1), 0), None);
        assert!(modules.all().is_empty());
    }

    #[test]
    fn a_module_with_a_relative_name_that_is_gone_again_has_its_path() {
        let mut modules = Modules::new(std::process::id());
        let exe = std::env::current_exe().expect("Linux has /proc").display().to_string();
        let here = std::env::current_dir().expect("there is one");
        let relative = format!("{}{}", "../".repeat(here.components().count() - 1), &exe[1..]);
        let index = modules.add_loaded(&event(&relative, 0x1000, 1), 0).expect("its file is there");
        let loaded = &modules.all()[index];
        assert!(loaded.module.path.starts_with('/') && loaded.module.path.ends_with(&exe), "{loaded:?}");
        assert!(loaded.file.starts_with("/proc"), "{loaded:?}");
    }

    #[test]
    fn an_unloaded_module_keeps_its_own_name_where_another_is_mapped_now() {
        let mut modules = Modules::new(std::process::id());
        let maps = maps::files_of(std::process::id());
        let libc = maps.iter().find(|mapping| mapping.path.contains("libc.so") && mapping.offset == 0);
        let libc = libc.expect("this test is dynamically linked");
        let gone = Event { end: libc.end, build_id: vec![7; 20], ..event("/plugins/liba.so", libc.start, 1) };
        let index = modules.add_loaded(&gone, 0).expect("new");
        let module = &modules.all()[index].module;
        assert_eq!((module.path.as_str(), &*module.build_id), ("/plugins/liba.so", &[7; 20][..]));
        assert_eq!((module.start, module.end), (libc.start, libc.end));
    }

    #[test]
    fn a_symbolic_link_is_known_by_the_path_of_its_file() {
        let mut modules = Modules::new(std::process::id());
        let exe = std::env::current_exe().expect("Linux has /proc").display().to_string();
        let maps = maps::files_of(std::process::id());
        let own = maps.iter().find(|mapping| mapping.path == exe && mapping.offset == 0).expect("it runs");
        let link = std::env::temp_dir().join(format!("edleak-link-{}", std::process::id()));
        std::os::unix::fs::symlink(&exe, &link).expect("a new name");
        let index = modules.add_loaded(&event(&link.display().to_string(), own.start, 1), 0);
        std::fs::remove_file(&link).expect("it was made here");
        assert_eq!(modules.all()[index.expect("new")].module.path, exe);
    }

    #[test]
    fn a_map_read_twice_adds_nothing() {
        let mut modules = own();
        let count = modules.all().len();
        assert_eq!(modules.add_maps(&maps::files_of(std::process::id()), 9), count);
        assert_eq!(modules.all().len(), count);
    }

    /// Two files that the test loads in turn at one address, and the load events of these files.
    struct Turns {
        modules: Modules,
        files: [String; 2],
    }

    impl Turns {
        fn new() -> Turns {
            let libc = own().all().iter().find(|loaded| loaded.module.path.contains("libc.so")).cloned();
            let libc = libc.expect("this test is dynamically linked").module.path;
            let exe = std::env::current_exe().expect("Linux has /proc").display().to_string();
            Turns { modules: Modules::new(std::process::id()), files: [libc, exe] }
        }

        fn load(&mut self, file: usize, number: u32) -> Option<usize> {
            let loaded = Event { end: 0x20_0000, ..event(&self.files[file], 0x10_0000, number) };
            self.modules.add_loaded(&loaded, 7)
        }
    }

    #[test]
    fn modules_that_take_turns_at_one_address_have_one_record_each() {
        let mut turns = Turns::new();
        for round in 0..100 {
            for file in 0..2 {
                let number = 4 * round + 2 * file as u32 + 1;
                assert_eq!(turns.load(file, number), Some(file), "round {round}");
                turns.modules.unloaded(0x10_0000, number + 1, 9);
            }
        }
        assert_eq!(turns.modules.all().len(), 2);
        assert!(turns.load(0, 401).is_some());
        assert_eq!(turns.load(0, 402), None, "it was never away");
        let is_loaded = |index: usize| turns.modules.all()[index].module.unloaded_ns == 0;
        assert_eq!((is_loaded(0), is_loaded(1)), (true, false));
    }

    #[test]
    fn a_forked_child_has_the_modules_that_its_parent_had_then() {
        let mut turns = Turns::new();
        turns.load(0, 1);
        turns.modules.unloaded(0x10_0000, 2, 9);
        turns.load(1, 3);
        let at_fork = |events: u32| {
            let modules = turns.modules.at_fork(events);
            let ids = modules.all().iter().map(|one| one.module.id.0 as usize);
            assert!(ids.eq(0..modules.all().len()), "ids are places in the list");
            modules.all().iter().map(|one| one.module.path.clone()).collect::<Vec<_>>()
        };
        assert_eq!(at_fork(0), Vec::<String>::new());
        assert_eq!(at_fork(1), turns.files[..1]);
        assert_eq!(at_fork(2), Vec::<String>::new());
        assert_eq!(at_fork(3), turns.files[1..]);
    }

    #[test]
    fn an_address_belongs_to_the_module_that_was_there_at_the_time() {
        let mut turns = Turns::new();
        for (file, number) in [(0, 1), (1, 3), (0, 5), (1, 7)] {
            turns.load(file, number);
        }
        let at = |events: u32| turns.modules.at(0x18_0000, events).map(|id| id.0);
        // The collector looks for the module whose first load event has the number `events`. If no module has
        // this number, the collector takes the module of the latest load event with a lower number.
        assert_eq!((at(1), at(3)), (Some(0), Some(1)));
        assert_eq!(
            (at(2), at(4), at(5), at(6), at(7), at(9)),
            (Some(0), Some(1), Some(0), Some(0), Some(1), Some(1))
        );
        assert_eq!(turns.modules.at(0x30_0000, 3), None);
    }

    #[test]
    fn a_module_is_known_by_its_first_event_however_often_it_came_back() {
        let mut turns = Turns::new();
        for number in 0..3 * MAX_LOADS as u32 {
            turns.load(number as usize % 2, 2 * number + 1);
        }
        assert_eq!(turns.modules.at(0x18_0000, 1), Some(ModuleId(0)));
        assert_eq!(turns.modules.at(0x18_0000, 3), Some(ModuleId(1)));
        assert_eq!(turns.modules.loads.len(), MAX_LOADS);
    }
}
