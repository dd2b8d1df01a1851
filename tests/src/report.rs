//! Reads the JSON report of edleak-analyze strictly: if a documented field is missing, the test fails.

use crate::analyze::analyze;
use serde_json::Value;
use std::path::Path;

/// The JSON report of edleak-analyze, with its exit code and its sites.
#[derive(Debug)]
pub struct Report {
    /// The exit code of edleak-analyze.
    pub code: i32,
    /// The whole report.
    pub json: Value,
    /// The sites that the report lists.
    pub sites: Vec<Site>,
}

/// The counters of a site.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Number of allocations at the site.
    pub allocs: u64,
    /// Requested bytes of all allocations at the site.
    pub allocated_bytes: u64,
    /// Number of frees of the allocations that the site made.
    pub frees: u64,
    /// Requested bytes of the freed allocations.
    pub freed_bytes: u64,
}

impl Counts {
    /// Adds the counters of another site to these counters.
    pub fn add(&mut self, other: &Counts) {
        self.allocs += other.allocs;
        self.allocated_bytes += other.allocated_bytes;
        self.frees += other.frees;
        self.freed_bytes += other.freed_bytes;
    }
}

/// One allocation site of a report.
#[derive(Debug)]
pub struct Site {
    /// The id of the site in the trace.
    pub id: u64,
    /// If the site is a full stack: the id of the caller site to which this stack belongs.
    pub parent: Option<u64>,
    /// The kind of the site: `caller`, `stack`, `other` or `injected`.
    pub kind: String,
    /// Whether edleak stopped reading the stack before the outermost frame, so that outer frames are missing.
    pub is_stack_cut: bool,
    /// The verdict on the site: `leak`, `no-leak` or `undecided`.
    pub verdict: String,
    /// The growth class of the site: `constant`, `log`, `linear` or `exp`.
    pub class: String,
    /// The counters of the site.
    pub counts: Counts,
    /// The number of calls of madvise that gave pages back to the system, and the sum of their lengths in
    /// bytes.
    pub given_back: (u64, u64),
    /// The frames of the site's stack, innermost first.
    pub stack: Vec<Frame>,
}

/// One frame of a stack.
#[derive(Debug, Default)]
pub struct Frame {
    /// Path of the module.
    pub module: String,
    /// Return address minus the module's load bias, in hexadecimal.
    pub offset: String,
    /// Demangled function name; empty if unknown.
    pub function: String,
    /// Source file; empty if unknown.
    pub file: String,
    /// Line number in the source file; 0 if unknown.
    pub line: u64,
    /// Whether the frame is inlined into the next frame.
    pub inlined: bool,
}

impl Report {
    /// The report of `edleak-analyze --format json OPTIONS TRACE`.
    pub fn of(trace: &Path, options: &[&str]) -> Report {
        let outcome = analyze(["--format", "json"].iter().chain(options), trace);
        let json: Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| {
            panic!(
                "the report of `{}` is not JSON: {error}\nexit code {}\nstdout: {}\nstderr: {}",
                trace.display(),
                outcome.code,
                outcome.stdout,
                outcome.stderr
            )
        });
        assert_eq!(json["format_version"], 1, "format_version of {json}");
        let sites = json["sites"].as_array().expect("`sites` is an array").iter().map(Site::read).collect();
        Report { code: outcome.code, json, sites }
    }

    /// A number from the summary of the report.
    pub fn summary(&self, field: &str) -> u64 {
        number(&self.json["summary"], field)
    }

    /// The sites with a frame in `function`.
    pub fn sites_in<'a>(&'a self, function: &'a str) -> impl Iterator<Item = &'a Site> {
        self.sites.iter().filter(move |site| site.is_in(function))
    }

    /// The sum of the counters of all sites in `function`. A site is in `function` if its innermost frame
    /// that is not inlined is in `function`. `counts_of` leaves out the memory that allocators map for
    /// themselves.
    pub fn counts_of(&self, function: &str) -> Counts {
        let mut sum = Counts::default();
        for site in &self.sites {
            let is_in = site.caller().is_some_and(|frame| is_named(&frame.function, function));
            if is_in && site.kind != "allocator" {
                sum.add(&site.counts);
            }
        }
        sum
    }

    /// The sites whose verdict is `leak`.
    pub fn leaks(&self) -> impl Iterator<Item = &Site> {
        self.sites.iter().filter(|site| site.verdict == "leak")
    }

    /// Describes each site in one line, for the message of a failing test.
    pub fn describe(&self) -> String {
        let line = |site: &Site| {
            let frames: Vec<_> =
                site.stack.iter().map(|f| format!("{} {}:{}", f.function, f.file, f.line)).collect();
            format!("  {} {} {:?} in {}\n", site.verdict, site.class, site.counts, frames.join(" < "))
        };
        self.sites.iter().map(line).collect()
    }
}

impl Site {
    fn read(json: &Value) -> Site {
        let counts = Counts {
            allocs: number(json, "allocs"),
            allocated_bytes: number(json, "allocated_bytes"),
            frees: number(json, "frees"),
            freed_bytes: number(json, "freed_bytes"),
        };
        assert_eq!(
            number(json, "live_bytes"),
            counts.allocated_bytes - counts.freed_bytes,
            "live_bytes of {json}"
        );
        assert_eq!(number(json, "live_count"), counts.allocs - counts.frees, "live_count of {json}");
        let stack = json["stack"].as_array().unwrap_or_else(|| panic!("no `stack` in {json}"));
        Site {
            id: number(json, "id"),
            parent: json["parent"].as_u64(),
            kind: text(json, "kind"),
            is_stack_cut: json["stack_cut"].as_bool().unwrap_or_else(|| panic!("no `stack_cut` in {json}")),
            verdict: text(json, "verdict"),
            class: text(json, "class"),
            counts,
            given_back: given_back(json),
            stack: stack.iter().map(Frame::read).collect(),
        }
    }

    /// Whether any frame of the stack, inlined or not, is in `function`.
    pub fn is_in(&self, function: &str) -> bool {
        self.stack.iter().any(|frame| is_named(&frame.function, function))
    }

    /// The innermost frame that is not inlined: the frame of the function that made the call.
    pub fn caller(&self) -> Option<&Frame> {
        self.stack.iter().find(|frame| !frame.inlined)
    }
}

impl Frame {
    fn read(json: &Value) -> Frame {
        Frame {
            module: text(json, "module"),
            offset: text(json, "offset"),
            function: text(json, "function"),
            file: text(json, "file"),
            line: json["line"].as_u64().unwrap_or(0),
            inlined: json["inlined"].as_bool().unwrap_or_else(|| panic!("no `inlined` in {json}")),
        }
    }
}

/// Whether `function`, a demangled name, is the function `name` of the source code. The comparison ignores
/// namespaces, parameters and the hash at the end of a Rust name.
pub fn is_named(function: &str, name: &str) -> bool {
    let without_parameters = function.split('(').next().expect("split gives at least one part");
    let is_hash = |part: &str| {
        part.len() == 17 && part.starts_with('h') && part[1..].bytes().all(|b| b.is_ascii_hexdigit())
    };
    without_parameters.rsplit("::").find(|part| !is_hash(part)) == Some(name)
}

/// The number of calls of madvise and the sum of their bytes, from the fields `given_back_calls` and
/// `given_back_bytes` of a site. If both fields are null, both numbers are 0.
fn given_back(json: &Value) -> (u64, u64) {
    match (&json["given_back_calls"], &json["given_back_bytes"]) {
        (Value::Null, Value::Null) => (0, 0),
        _ => (number(json, "given_back_calls"), number(json, "given_back_bytes")),
    }
}

fn number(json: &Value, field: &str) -> u64 {
    json[field].as_u64().unwrap_or_else(|| panic!("`{field}` is no number ≥ 0 in {json}"))
}

/// The value of a text field in JSON, or the empty text if the value is `null`.
fn text(json: &Value, field: &str) -> String {
    match &json[field] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => panic!("`{field}` is {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::is_named;

    #[test]
    fn a_demangled_name_is_recognized() {
        assert!(is_named("login(long)", "login"));
        assert!(is_named("rust_leaker::Service::open_session", "open_session"));
        assert!(is_named("event_log::log_event::h0123456789abcdef", "log_event"));
        assert!(is_named("grow_list", "grow_list"));
        assert!(!is_named("grow_list_more", "grow_list"));
        assert!(!is_named("", "grow_list"));
    }
}
