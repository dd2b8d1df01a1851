//! One function for each fuzz target. A fuzz target reads a file that may come from an untrusted source, and
//! must neither panic nor hang.
//!
//! cargo-fuzz runs these functions through `fuzz_targets/`: `cargo +nightly fuzz run series`. CI runs the
//! same functions on stable Rust, with the inputs of the corpus and a fixed set of changed inputs:
//! `tests/tests/fuzz.rs` includes this file.

use edleak_analysis::gate::Policy;
use edleak_analysis::judge::judge_recording;
use edleak_analysis::load::{Input, LoadOptions, edleak_json, lines};
use edleak_analysis::naming::name_sites;
use edleak_analysis::suppressions::Suppressions;
use edleak_analysis::verify::Verification;
use edleak_binary::calls::Code;
use edleak_binary::elf::Elf;
use edleak_binary::functions::FunctionTable;
use edleak_binary::{Options, Symbolizer};
use edleak_collector::rules::unwind;
use edleak_collector::rules::wrappers::{WrapperSet, wrapper_functions, wrapper_ranges};
use edleak_format::Trace;
use edleak_format::fuzzing::{file_of, read_everything};
use edleak_model::classify::Model;
use edleak_report::{Exporter, Report, folded, github, json, junit, sarif, series as series_lines, text};

/// A function that processes one input.
pub type Target = fn(&[u8]);

/// All fuzz targets, by name.
pub const TARGETS: [(&str, Target); 7] = [
    ("reader", reader),
    ("content", content),
    ("series", series),
    ("edleak_json", edleak_json),
    ("suppressions", suppressions),
    ("symbols", symbols),
    ("unwind", unwind),
];

/// Reads the input as a trace file.
pub fn reader(input: &[u8]) {
    read_everything(input.to_vec());
    let Ok(trace) = Trace::from_bytes(input.to_vec()) else { return };
    Verification::of(&trace).write("trace", &mut Vec::new()).expect("memory takes everything");
    report(&Input::Trace(Box::new(trace)));
}

/// Reads a trace whose blocks have the input as their content. The function adds correct checksums, so that
/// the reader gets past the checksum test.
pub fn content(input: &[u8]) {
    reader(&file_of(input));
}

/// Reads series lines.
pub fn series(input: &[u8]) {
    if let Ok(lines) = lines::read(input, LoadOptions { keep_points: true }) {
        report(&Input::Lines(lines));
    }
}

/// Reads a JSON document of edLeak, the leak finder of 2014.
pub fn edleak_json(input: &[u8]) {
    if let Ok(lines) = edleak_json::read(input, LoadOptions { keep_points: true }) {
        report(&Input::Lines(lines));
    }
}

/// Reads a suppression file.
pub fn suppressions(input: &[u8]) {
    let Ok(rules) = Suppressions::parse("rules", input) else { return };
    let text = String::from_utf8_lossy(input);
    let _ = rules.matching(text.split([':', '\n']));
}

/// Reads a program's ELF file with its symbols and debug information, as the analyzer does.
pub fn symbols(input: &[u8]) {
    edleak_binary::fuzzing::look_up_everything(input);
}

/// Reads a target's ELF file with its unwind information, as the collector does.
pub fn unwind(input: &[u8]) {
    let Ok(elf) = Elf::parse(input) else { return };
    let _ = (
        elf.check_segments().is_ok(),
        elf.interpreter(),
        elf.build_id(),
        elf.soname(),
        elf.own_malloc(),
        elf.extent(),
        elf.mentioned(&["malloc"]).is_some(),
    );
    let table = unwind::compile(&elf);
    assert!(table.rows.is_sorted_by(|a, b| a.start < b.start));
    let named = FunctionTable::of(&elf);
    let functions = wrapper_functions(&elf, &named, &WrapperSet::builtin());
    let some = unwind::compile_in(&elf, &functions);
    assert!(some.rows.is_sorted_by(|a, b| a.start < b.start));
    for table in [&table, &some] {
        assert!(wrapper_ranges(&elf, table, &functions).iter().all(|range| range.start < range.end));
    }
    let mut code = Code::new(&elf);
    for function in named.functions.iter().take(1000) {
        code.may_call(function.start, function.end);
        table.known_in(function.start, function.end).for_each(|(from, to, _)| assert!(from < to));
        table.lookup(function.end);
    }
}

/// Judges a recording with every model, and writes a report in every format, because models and reports must
/// not fail on a hostile recording.
fn report(recording: &Input) {
    let symbolizer = Symbolizer::new(Options::default());
    let policy = Policy { all: true, ..Policy::default() };
    for model in [Model::Growth, Model::LeakFactor] {
        let mut analyses = [judge_recording("input".to_owned(), recording, model)];
        name_sites(&mut analyses[0], recording, &symbolizer, |site| policy.wants(site));
        let rule_uses = policy.apply(&mut analyses);
        let recordings = std::slice::from_ref(recording);
        let report = Report { analyses: &analyses, recordings, rules: &[], rule_uses, top: Some(100) };
        let root = String::new;
        let exporters: [&dyn Exporter; 7] = [
            &text::Text { style: text::Style::of_environment(false) },
            &json::Json,
            &series_lines::SeriesLines,
            &folded::Folded,
            &junit::Junit,
            &sarif::Sarif { root: root() },
            &github::Github { root: root() },
        ];
        for exporter in exporters {
            exporter.export(&report, &mut Vec::new()).expect("memory takes everything");
        }
    }
}
