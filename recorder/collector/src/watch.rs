//! Watch requests: which sites record full stacks, from the command line, an old trace, or a running session.

use crate::elf::Elf;
use crate::globs::Glob;
use crate::names::FunctionName;
use edleak_analyzer::analysis::SiteLabel;
use edleak_analyzer::classify::Model;
use edleak_analyzer::judge::judge_recording;
use edleak_analyzer::load::{LoadOptions, load};
use edleak_format::{Module, SiteId, SiteKind, Trace};
use std::path::Path;

/// One request.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Request {
    /// Every function whose demangled name, or its path without parameters, matches.
    Function(Glob),
    /// A return address in a module named by its file name or path.
    Offset { module: String, offset: u64 },
    /// A return address in the very same build of a module.
    Build { build_id: Vec<u8>, offset: u64 },
}

/// The sites to watch.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct WatchSet {
    everything: bool,
    requests: Vec<Request>,
}

impl WatchSet {
    /// Nothing.
    pub fn new() -> WatchSet {
        WatchSet::default()
    }

    /// Whether nothing is watched.
    pub fn is_empty(&self) -> bool {
        !self.everything && self.requests.is_empty()
    }

    /// Whether every site is watched.
    pub fn is_everything(&self) -> bool {
        self.everything
    }

    /// Adds a request as a person writes it: a pattern on function names, `module!offset` (hexadecimal), or `TRACE#id`.
    pub fn add(&mut self, spec: &str) -> Result<(), String> {
        if spec.is_empty() {
            return Err(
                "an empty watch means nothing (name a function, `module!0x1234`, or `old.edl#7`)".into()
            );
        }
        if let Some((module, offset)) = spec.rsplit_once('!') {
            let digits = offset.trim_start_matches("0x");
            let offset = u64::from_str_radix(digits, 16).map_err(|_| {
                format!(
                    "`{offset}` in `{spec}` is no hexadecimal offset (use for example `libfoo.so!0x1a2b`)"
                )
            })?;
            self.requests.push(Request::Offset { module: module.to_owned(), offset });
            return Ok(());
        }
        if let Some((trace, id)) = spec.rsplit_once('#')
            && let Ok(id) = id.parse()
        {
            return self.add_site_of(Path::new(trace), SiteId(id));
        }
        if Glob::new(spec).matches_everything() {
            self.everything = true;
        } else {
            self.requests.push(Request::Function(Glob::new(spec)));
        }
        Ok(())
    }

    /// Adds one site of an earlier trace.
    fn add_site_of(&mut self, path: &Path, id: SiteId) -> Result<(), String> {
        let trace = open(path)?;
        match request_for(&trace, id) {
            Some(request) => self.requests.push(request),
            None => {
                let shown = path.display();
                return Err(format!(
                    "`{shown}` has no site {} with a module (list them with `edleak-analyze --all {shown}`)",
                    id.0
                ));
            }
        }
        Ok(())
    }

    /// Adds every leak of an earlier trace; returns how many.
    pub fn add_leaks_of(&mut self, path: &Path) -> Result<usize, String> {
        let trace = open(path)?;
        let recording = load(path, LoadOptions::default()).map_err(|error| error.to_string())?;
        let analysis = judge_recording(path.display().to_string(), &recording, Model::Growth);
        let leaks = analysis.sites.iter().filter(|site| site.is_leak());
        let ids =
            leaks.filter_map(|site| if let SiteLabel::Number(id) = &site.label { Some(*id) } else { None });
        let requests: Vec<_> = ids.filter_map(|id| request_for(&trace, SiteId(id as u32))).collect();
        let count = requests.len();
        for request in requests {
            if !self.requests.contains(&request) {
                self.requests.push(request);
            }
        }
        Ok(count)
    }

    /// The code of the watched functions of a file: offsets of first bytes and ends.
    pub fn functions_in(&self, elf: &Elf<'_>) -> Vec<(u32, u32)> {
        let globs: Vec<_> = self
            .requests
            .iter()
            .filter_map(|request| if let Request::Function(glob) = request { Some(glob) } else { None })
            .collect();
        if globs.is_empty() {
            return Vec::new();
        }
        let matches = |raw: &str| {
            let name = FunctionName::new(raw);
            globs
                .iter()
                .any(|glob| glob.matches(&name.demangled) || glob.matches(&name.path) || glob.matches(raw))
        };
        let functions = elf.functions();
        functions
            .iter()
            .filter(|function| matches(function.name))
            .map(|function| (function.start, function.end))
            .collect()
    }

    /// The watched return addresses in a module.
    pub fn addresses_in<'a>(&'a self, module: &'a Module) -> impl Iterator<Item = u64> + 'a {
        let file_name = Path::new(&module.path).file_name().and_then(|name| name.to_str());
        self.requests.iter().filter_map(move |request| {
            let offset = match request {
                Request::Function(_) => return None,
                Request::Offset { module: name, offset } => {
                    (*name == module.path || Some(name.as_str()) == file_name).then_some(*offset)?
                }
                Request::Build { build_id, offset } => {
                    (!build_id.is_empty() && *build_id == module.build_id).then_some(*offset)?
                }
            };
            Some(module.load_bias.wrapping_add(offset))
        })
    }
}

fn open(path: &Path) -> Result<Trace, String> {
    Trace::open(path).map_err(|error| error.to_string())
}

/// A request for the site of a trace, by build and offset, so that it holds across restarts and address randomization;
/// by path where the file had no build ID. A stack's is that of its caller.
fn request_for(trace: &Trace, id: SiteId) -> Option<Request> {
    let mut site = trace.site(id)?;
    if site.kind == SiteKind::Stack {
        site = trace.site(site.parent?)?;
    }
    let module = trace.module(site.module?)?;
    let offset = site.address.wrapping_sub(module.load_bias);
    Some(if module.build_id.is_empty() {
        Request::Offset { module: module.path.clone(), offset }
    } else {
        Request::Build { build_id: module.build_id.clone(), offset }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use edleak_format::ModuleId;

    fn module() -> Module {
        Module {
            id: ModuleId(0),
            path: "/usr/lib/libfoo.so.1".into(),
            build_id: vec![1, 2, 3],
            load_bias: 0x7000_0000,
            start: 0x7000_0000,
            end: 0x7001_0000,
            loaded_ns: 0,
            unloaded_ns: 0,
        }
    }

    #[test]
    fn offsets_are_found_by_file_name_path_or_build() {
        let mut watch = WatchSet::new();
        watch.add("libfoo.so.1!0x10").expect("well-formed");
        watch.add("/usr/lib/libfoo.so.1!20").expect("well-formed");
        watch.add("libbar.so!30").expect("well-formed");
        watch.requests.push(Request::Build { build_id: vec![1, 2, 3], offset: 0x40 });
        watch.requests.push(Request::Build { build_id: vec![9], offset: 0x50 });
        let module = module();
        assert_eq!(watch.addresses_in(&module).collect::<Vec<_>>(), [0x7000_0010, 0x7000_0020, 0x7000_0040]);
    }

    #[test]
    fn nonsense_is_refused_with_a_remedy() {
        let mut watch = WatchSet::new();
        for spec in ["", "libfoo.so!xyz", "/no/such/trace.edl#3"] {
            let message = watch.add(spec).expect_err(spec);
            assert!(message.ends_with(')') || message.contains("No such file"), "{message}");
        }
        assert!(watch.is_empty());
        watch.add("*").expect("everything");
        assert!(watch.is_everything());
    }
}
