//! Watch requests: a request names sites whose full stacks edleak records. A user names the sites of a watch
//! request on the command line (also by their ids in an old trace) or through the control socket of a running
//! recording.

use crate::error::{Error, ErrorKind};
use edleak_binary::functions::FunctionTable;
use edleak_binary::names::FunctionName;
use edleak_format::{Module, SiteId, SiteKind, Trace};
use edleak_text::globs::Glob;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// One request, which names one or more sites.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// The request names every site.
    Everything,
    /// The request names every function for which the symbol, the demangled name, or the path without
    /// parameters matches the pattern.
    Function(Glob),
    /// The request names a return address in a module, which the user gives by file name or path.
    Offset {
        /// The name or path of the module.
        module: String,
        /// The address, relative to the module's load bias.
        offset: u64,
    },
    /// The request names a return address in the module with this build ID.
    Build {
        /// The build ID of the module.
        build_id: Vec<u8>,
        /// The address, relative to the module's load bias.
        offset: u64,
    },
}

const BUILD_ID: &str = "build-id:";

impl Request {
    /// Reads a request in the form in which a user writes requests. The request is a pattern on function
    /// names, `module!offset` (hexadecimal), or `TRACE#id` for a site of an earlier trace.
    ///
    /// # Errors
    /// The request has a wrong form, or the earlier trace has no such site.
    pub fn parse(spec: &str) -> Result<Request, Error> {
        match spec.rsplit_once('#').map(|(trace, id)| (trace, id.parse())) {
            Some((trace, Ok(id))) => site_of(Path::new(trace), SiteId(id)),
            _ => Request::parse_plain(spec),
        }
    }

    /// Reads a request that [`fmt::Display`] wrote. The request has one of the forms of [`Request::parse`],
    /// except `TRACE#id`, so this function opens no file.
    ///
    /// # Errors
    /// The request has a wrong form.
    pub(crate) fn parse_plain(spec: &str) -> Result<Request, Error> {
        if spec.trim().is_empty() {
            return Err(Error::new(ErrorKind::Request, "an empty watch names no site")
                .with_remedy("name a function, `module!0x1234`, or `old.edl#7`"));
        }
        if spec.contains(char::is_control) {
            return Err(Error::new(ErrorKind::Request, "a watch is one line without tabs")
                .with_remedy("name a function, or `module!0x1234`"));
        }
        if let Some((module, offset)) =
            spec.rsplit_once('!').filter(|(module, _)| !module.ends_with("operator"))
        {
            let digits = offset.trim_start_matches("0x");
            let offset = u64::from_str_radix(digits, 16).map_err(|_| {
                Error::new(ErrorKind::Request, format!("`{offset}` in `{spec}` is no hexadecimal offset"))
                    .with_remedy("use for example `libfoo.so!0x1a2b`")
            })?;
            return Ok(match module.strip_prefix(BUILD_ID).and_then(from_hex) {
                Some(build_id) => Request::Build { build_id, offset },
                None => Request::Offset { module: module.to_owned(), offset },
            });
        }
        let glob = Glob::new(spec);
        Ok(if glob.matches_everything() { Request::Everything } else { Request::Function(glob) })
    }

    /// The return address that the request names in a module; `None`: the request does not name exactly one
    /// return address in this module.
    fn address_in(&self, module: &Module) -> Option<u64> {
        let offset = match self {
            Request::Everything | Request::Function(_) => return None,
            Request::Offset { module: name, offset } => {
                let file_name = Path::new(&module.path).file_name().and_then(|name| name.to_str());
                (*name == module.path || Some(name.as_str()) == file_name).then_some(*offset)?
            }
            Request::Build { build_id, offset } => {
                (!build_id.is_empty() && *build_id == module.build_id).then_some(*offset)?
            }
        };
        Some(module.load_bias.wrapping_add(offset))
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Everything => f.write_str("*"),
            Request::Function(glob) => f.write_str(glob.as_str()),
            Request::Offset { module, offset } => write!(f, "{module}!{offset:#x}"),
            Request::Build { build_id, offset } => {
                f.write_str(BUILD_ID)?;
                build_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                write!(f, "!{offset:#x}")
            }
        }
    }
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let pairs =
        digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok().filter(|p| p.len() == 2));
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

/// A request, and a flag that tells whether the user wants or does not want to watch the sites that the
/// request names. If two requests name the same site, the request that the user made last applies.
#[derive(Clone, Debug)]
struct Entry {
    request: Request,
    is_for: bool,
    serial: u32,
}

/// A range of code that a request names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RequestRange {
    /// Offset of the first byte of the range. If the request names a return address, `start` is the offset of
    /// the byte before the return address.
    pub(crate) start: u64,
    /// Offset of the first byte after the range.
    pub(crate) end: u64,
    /// `true`: the request asks to watch the range; `false`: the request asks not to watch the range.
    pub(crate) is_for: bool,
    /// The serial number of the request that names the range.
    pub(crate) serial: u32,
}

/// The set of sites that the user asked to watch or not to watch.
#[derive(Clone, Debug, Default)]
pub struct WatchSet {
    everything: bool,
    entries: Vec<Entry>,
    last_serial: u32,
    version: u64,
}

impl WatchSet {
    /// Makes an empty set.
    pub fn new() -> WatchSet {
        WatchSet::default()
    }

    /// Whether the set contains no site to watch.
    pub fn is_empty(&self) -> bool {
        !self.everything && self.entries.iter().all(|entry| !entry.is_for)
    }

    /// Whether the set contains every site, except the sites that the user excluded.
    pub(crate) fn is_everything(&self) -> bool {
        self.everything
    }

    /// The version number of the set. Two different sets of requests have different version numbers.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Adds a request to watch sites, in the form in which a user writes requests.
    ///
    /// # Errors
    /// The request has a wrong form, or the earlier trace in the request has no such site.
    pub fn add(&mut self, spec: &str) -> Result<(), Error> {
        self.ask(Request::parse(spec)?, true);
        Ok(())
    }

    /// Adds a request to watch sites (`is_for`) or not to watch sites. Returns the serial number of the
    /// request.
    pub(crate) fn ask(&mut self, request: Request, is_for: bool) -> u32 {
        static VERSIONS: AtomicU64 = AtomicU64::new(1);
        self.version = VERSIONS.fetch_add(1, Ordering::Relaxed);
        self.last_serial += 1;
        if request == Request::Everything {
            self.everything = is_for;
            self.entries.clear();
        } else {
            self.entries.retain(|entry| entry.request != request);
            self.entries.push(Entry { request, is_for, serial: self.last_serial });
        }
        self.last_serial
    }

    /// Adds sites of an earlier trace by their ids. The function ignores a site that belongs to no module.
    ///
    /// # Errors
    /// The earlier trace cannot be read.
    pub fn add_sites_of(&mut self, path: &Path, sites: &[u32]) -> Result<(), Error> {
        let trace = open(path)?;
        for request in sites.iter().filter_map(|&id| request_for(&trace, SiteId(id))) {
            self.ask(request, true);
        }
        Ok(())
    }

    /// The code ranges of those functions of a file that requests name, sorted by address and without
    /// overlap. The offsets of the ranges count from the first byte of the file.
    pub(crate) fn functions_in(&self, named: &FunctionTable<'_>) -> Vec<RequestRange> {
        if !self.names_functions() {
            return Vec::new();
        }
        let asked = |raw: &str| {
            let name = FunctionName::new(raw);
            let matches = |entry: &&Entry| match &entry.request {
                Request::Function(glob) => name.matches(glob),
                _ => false,
            };
            self.entries.iter().rev().find(matches)
        };
        let mut found: Vec<RequestRange> = Vec::new();
        for function in &named.functions {
            let Some(entry) = asked(function.name) else { continue };
            let (start, end) = (u64::from(function.start), u64::from(function.end));
            let new = RequestRange { start, end, is_for: entry.is_for, serial: entry.serial };
            match found.last_mut() {
                // Two names of one function match, so two requests name the same code range: keep the request
                // that the user made last.
                Some(last) if last.start == start => {
                    last.end = last.end.max(end);
                    if new.serial > last.serial {
                        *last = RequestRange { end: last.end, ..new };
                    }
                }
                Some(last) if start < last.end => {
                    last.end = start;
                    found.push(new);
                }
                _ => found.push(new),
            }
        }
        found
    }

    /// The requests to watch sites, each with its serial number, but without the request `*` (watch every
    /// site).
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (&Request, u32)> {
        self.entries.iter().filter(|entry| entry.is_for).map(|entry| (&entry.request, entry.serial))
    }

    /// Whether any request in the set names functions.
    pub(crate) fn names_functions(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.request, Request::Function(_)))
    }

    /// The requests for single return addresses in a module.
    pub(crate) fn addresses_in<'a>(&'a self, module: &'a Module) -> impl Iterator<Item = RequestRange> + 'a {
        self.entries.iter().filter_map(|entry| {
            let address = entry.request.address_in(module)?;
            let (is_for, serial) = (entry.is_for, entry.serial);
            Some(RequestRange { start: address.wrapping_sub(1), end: address, is_for, serial })
        })
    }
}

impl fmt::Display for WatchSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if self.everything {
            f.write_str("*")?;
            separator = " ";
        }
        for entry in self.entries.iter().filter(|entry| entry.is_for || self.everything) {
            let without = if entry.is_for { "" } else { "without " };
            write!(f, "{separator}{without}{}", entry.request)?;
            separator = " ";
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<Trace, Error> {
    // The error of the crate edleak-format already contains the path of the trace, so the function does not
    // add the path.
    Trace::open(path).map_err(|error| {
        Error::new(ErrorKind::EarlierTrace, error.message())
            .with_remedy(error.remedy().unwrap_or("name a trace of edleak-record"))
    })
}

/// Makes a request for one site of an earlier trace.
fn site_of(path: &Path, id: SiteId) -> Result<Request, Error> {
    let trace = open(path)?;
    request_for(&trace, id).ok_or_else(|| {
        let shown = path.display();
        Error::new(ErrorKind::EarlierTrace, format!("`{shown}` has no site {} with a module", id.0))
            .with_remedy(format!("list them with `edleak-analyze --all {shown}`"))
    })
}

/// Makes a request for a site of a trace. The request contains the build ID of the module and an offset, so
/// the request is still valid in the next run of the program, in which the addresses differ. If the module
/// has no build ID, the request contains the path of the module. If `id` is the id of a stack, the request
/// names the site to which the stack belongs.
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
        watch.add("build-id:010203!0x40").expect("well-formed");
        watch.ask(Request::Build { build_id: vec![9], offset: 0x50 }, true);
        let module = module();
        let ends: Vec<_> = watch.addresses_in(&module).map(|asked| asked.end).collect();
        assert_eq!(ends, [0x7000_0010, 0x7000_0020, 0x7000_0040]);
    }

    #[test]
    fn written_request_is_parsed_unchanged() {
        for spec in
            ["*", "ns::f(*)", "libfoo.so!0x10", "build-id:00ff!0x10", "operator!=*", "operator new(*)"]
        {
            let request = Request::parse(spec).expect(spec);
            assert_eq!(request.to_string(), spec);
            assert_eq!(Request::parse(&request.to_string()), Ok(request));
        }
        assert!(matches!(Request::parse("operator!*"), Ok(Request::Function(_))));
    }

    #[test]
    fn of_two_requests_that_mean_the_same_the_later_holds() {
        let mut watch = WatchSet::new();
        let empty = watch.version();
        watch.add("f*").expect("well-formed");
        watch.ask(Request::parse("fa").expect("well-formed"), false);
        assert_eq!(watch.to_string(), "f*");
        assert_ne!(watch.version(), empty);
        let file = edleak_binary::BinaryFile::open(Path::new("/proc/self/exe")).expect("our own file");
        let named = FunctionTable::of(&file.elf().expect("it runs, so it is sound"));
        let main = |watch: &WatchSet| {
            let main = named.functions.iter().find(|f| f.name == "main").map(|f| u64::from(f.start));
            let asked = watch.functions_in(&named);
            assert!(asked.windows(2).all(|pair| pair[0].end <= pair[1].start), "sorted, without overlap");
            asked.into_iter().find(|asked| Some(asked.start) == main).map(|asked| asked.is_for)
        };
        let mut watch = WatchSet::new();
        for (spec, is_for) in [("mai?", true), ("main", false), ("m*", true), ("mai?", false), ("*", false)] {
            watch.ask(Request::parse(spec).expect("well-formed"), is_for);
            assert_eq!(main(&watch), (spec != "*").then_some(is_for), "{spec}");
        }
        assert!(watch.is_empty());
    }

    #[test]
    fn nonsense_is_refused_with_a_remedy() {
        let mut watch = WatchSet::new();
        for spec in ["", "a\tb", "libfoo.so!xyz", "/no/such/trace.edl#3"] {
            let error = watch.add(spec).expect_err(spec);
            let message = error.to_string();
            assert!(error.remedy().is_some(), "{message}");
            assert!(!spec.contains('#') || message.contains("`/no/such/trace.edl`"), "{message}");
        }
        assert!(watch.is_empty());
        watch.add("*").expect("everything");
        assert!(watch.is_everything());
    }
}
