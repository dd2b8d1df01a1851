//! Writes a gzipped pprof profile, for `go tool pprof` and for other viewers that read this format.
//!
//! Each site without recorded stacks is a sample with one address. Each recorded stack is a sample with all
//! its frames. The values of a sample are the values of a heap profile, and in addition `leaked_space`, the
//! leaked bytes. The leaked bytes always come from the verdict on the whole record, even if the profile
//! covers only a part of it. All values except `leaked_space` belong to the instant or to the range of time
//! for which the user wants the profile. The values are exact, so their sums over all samples are the totals
//! of the trace.

mod message;

use crate::{Exporter, Report};
use edleak_analysis::analysis::Analysis;
use edleak_analysis::frame::{Address, frames};
use edleak_analysis::load::Input;
use edleak_analysis::profile::Profile;
use edleak_analysis::site::JudgedSite;
use edleak_format::{ModuleId, Trace};
use flate2::Compression;
use flate2::write::GzEncoder;
use message::{Function, Label, Line, Location, Mapping, Profile as Message, Sample, ValueType};
use prost::Message as _;
use std::collections::HashMap;
use std::io::{self, Write};

/// The type and the unit of each value of a sample, in the order in which a sample has them.
const SAMPLE_TYPES: [(&str, &str); 5] = [
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
    ("leaked_space", "bytes"),
];

/// The pprof exporter. The exporter writes only the first recording of a report.
#[derive(Debug)]
pub struct Pprof {
    /// The profile that the exporter writes.
    pub profile: Profile,
}

impl Exporter for Pprof {
    fn export(&self, report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
        match (report.analyses, report.recordings) {
            ([analysis, ..], [Input::Trace(trace), ..]) => write_pprof(analysis, trace, &self.profile, out),
            _ => {
                Err(io::Error::other("a pprof profile covers a trace (give a file that edleak-record wrote)"))
            }
        }
    }
}

/// Writes the profile of one trace. The symbols of the sites in `analysis` must be resolved before the call.
///
/// # Errors
/// `out` cannot be written to.
pub fn write_pprof(
    analysis: &Analysis,
    trace: &Trace,
    profile: &Profile,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut builder = Builder { trace, message: Message::default(), tables: Tables::default() };
    builder.string("");
    builder.header(analysis, profile);
    // pprof takes the name and the build ID of the program from the first mapping. So the first module of the
    // trace must become the first mapping of the profile. The first module of the trace is the program: the
    // recorder finds modules in the order of their addresses, and the kernel maps the program at the lowest
    // address.
    if let Some(program) = trace.modules().first() {
        builder.mapping(program.id);
    }
    let leaked = leaked_bytes(analysis);
    for row in &profile.rows {
        let site = &analysis.sites[row.site];
        let values = [
            row.figures.allocs.into(),
            row.figures.allocated_bytes.into(),
            row.figures.live_count,
            row.figures.live_bytes,
            leaked[row.site].into(),
        ];
        builder.sample(analysis, site, values);
    }
    let mut gzip = GzEncoder::new(out, Compression::default());
    gzip.write_all(&builder.message.encode_to_vec())?;
    gzip.finish().map(|_| ())
}

/// The leaked bytes of each site. If a watched site was judged together with its stacks, its leaked bytes
/// count at the stacks and not at the site.
fn leaked_bytes(analysis: &Analysis) -> Vec<u64> {
    let index: HashMap<_, usize> = (0..).zip(&analysis.sites).map(|(i, site)| (&site.label, i)).collect();
    let mut leaked = vec![0u64; analysis.sites.len()];
    for site in analysis.sites.iter().filter(|site| site.is_leak()) {
        for (part, bytes) in analysis.leaked_by_stack(site) {
            if let Some(&at) = index.get(&part.label) {
                leaked[at] = leaked[at].saturating_add(bytes);
            }
        }
    }
    leaked
}

/// The strings, mappings, functions and locations that the message already has. Each table maps an item to
/// its index or id, so that the message contains no item twice.
#[derive(Default)]
struct Tables {
    strings: HashMap<String, i64>,
    mappings: HashMap<ModuleId, u64>,
    functions: HashMap<(i64, i64), u64>,
    locations: HashMap<(Option<ModuleId>, u64), u64>,
    /// For each site without an address: its name, and the id of its location.
    named: HashMap<String, u64>,
}

struct Builder<'a> {
    trace: &'a Trace,
    message: Message,
    tables: Tables,
}

impl Builder<'_> {
    fn header(&mut self, analysis: &Analysis, profile: &Profile) {
        for (name, unit) in SAMPLE_TYPES {
            let value_type = ValueType { r#type: self.string(name), unit: self.string(unit) };
            self.message.sample_type.push(value_type);
        }
        self.message.default_sample_type = self.string("inuse_space");
        // The sampling period is 1 byte, because edleak counts every byte.
        self.message.period_type =
            Some(ValueType { r#type: self.string("space"), unit: self.string("bytes") });
        self.message.period = 1;
        self.message.time_nanos = saturated(analysis.header.started_unix_ns.into());
        let from_s = profile.from.map_or(0.0, |from| from.time_s);
        // If the duration is too large for an `i64`, the cast gives the greatest `i64`.
        self.message.duration_nanos = ((profile.to.time_s - from_s) * 1e9).round() as i64;
        if !analysis.header.command.is_empty() {
            let command = self.string(&analysis.header.command.join(" "));
            self.message.comment.push(command);
        }
    }

    fn sample(&mut self, analysis: &Analysis, site: &JudgedSite, values: [i128; 5]) {
        let location_id = match site.stack.is_empty() {
            true => vec![self.named_location(&site.name())],
            false => site.stack.iter().map(|address| self.location(address)).collect(),
        };
        let verdict = crate::json::words::verdict_name(site.judgement.verdict);
        let mut labels = vec![("verdict", verdict), ("class", site.judgement.class.name())];
        if analysis.sites.len() > 1 && site.is_stack_cut {
            labels.push(("stack", "cut"));
        }
        let label = labels
            .into_iter()
            .map(|(key, text)| Label { key: self.string(key), str: self.string(text) })
            .collect();
        self.message.sample.push(Sample { location_id, value: values.map(saturated).to_vec(), label });
    }

    /// The index of a text in the string table. If the table does not have the text, the function adds it.
    fn string(&mut self, text: &str) -> i64 {
        if let Some(&index) = self.tables.strings.get(text) {
            return index;
        }
        let index = self.message.string_table.len() as i64;
        self.message.string_table.push(text.to_owned());
        self.tables.strings.insert(text.to_owned(), index);
        index
    }

    fn location(&mut self, address: &Address) -> u64 {
        let key = (address.module_id, address.address);
        if let Some(&id) = self.tables.locations.get(&key) {
            return id;
        }
        let mapping_id = address.module_id.map_or(0, |module| self.mapping(module));
        let mut line = Vec::new();
        for frame in frames(std::slice::from_ref(address)).filter(|frame| frame.frame.is_some()) {
            let (file, number) = frame.place().unwrap_or_default();
            let function_id = self.function(&frame.name(), file);
            line.push(Line { function_id, line: number.into() });
        }
        if let Some(mapping) =
            mapping_id.checked_sub(1).and_then(|i| self.message.mapping.get_mut(i as usize))
        {
            mapping.has_functions |= !line.is_empty();
            mapping.has_inline_frames |= line.len() > 1;
            let has_lines = line.iter().any(|line| line.line > 0);
            mapping.has_filenames |= has_lines;
            mapping.has_line_numbers |= has_lines;
        }
        // The location gets the return address minus one, which is inside the call instruction. If the call
        // is the last instruction of a function, the return address itself belongs to the next function.
        let id = self.push_location(mapping_id, address.address.saturating_sub(1), line);
        self.tables.locations.insert(key, id);
        id
    }

    /// Returns the id of the location for a site that has a name but no address.
    fn named_location(&mut self, name: &str) -> u64 {
        if let Some(&id) = self.tables.named.get(name) {
            return id;
        }
        let function_id = self.function(name, "");
        let id = self.push_location(0, 0, vec![Line { function_id, line: 0 }]);
        self.tables.named.insert(name.to_owned(), id);
        id
    }

    fn push_location(&mut self, mapping_id: u64, address: u64, line: Vec<Line>) -> u64 {
        let id = self.message.location.len() as u64 + 1;
        self.message.location.push(Location { id, mapping_id, address, line });
        id
    }

    fn function(&mut self, name: &str, file: &str) -> u64 {
        let (name, filename) = (self.string(name), self.string(file));
        let next = self.message.function.len() as u64 + 1;
        let id = *self.tables.functions.entry((name, filename)).or_insert(next);
        if id == next {
            self.message.function.push(Function { id, name, system_name: name, filename });
        }
        id
    }

    fn mapping(&mut self, module: ModuleId) -> u64 {
        if let Some(&id) = self.tables.mappings.get(&module) {
            return id;
        }
        let Some(known) = self.trace.module(module) else { return 0 };
        let build_id: String = known.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
        let id = self.message.mapping.len() as u64 + 1;
        let mapping = Mapping {
            id,
            memory_start: known.start,
            memory_limit: known.end,
            filename: self.string(&known.path),
            build_id: self.string(&build_id),
            ..Mapping::default()
        };
        self.message.mapping.push(mapping);
        self.tables.mappings.insert(module, id);
        id
    }
}

/// Limits a value to the range of 64-bit integers, which pprof needs. A hostile target can write any number
/// into its counters, so `value` may be too large for a 64-bit integer.
fn saturated(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}
