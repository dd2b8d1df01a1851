//! SARIF 2.1.0: one result for each leak, with its place in the code, its stack, and a fingerprint. The
//! fingerprint of a leak stays the same if the program is built again.

use super::{Exporter, Report, pace, source_path, stacks_of, why_of};
use edleak_analysis::analysis::Analysis;
use edleak_analysis::finding::Finding;
use edleak_analysis::frame::SiteFrame;
use edleak_analysis::gate::too_little;
use edleak_analysis::group::Group;
use edleak_analysis::site::JudgedSite;
use edleak_model::classify::Confidence;
use edleak_text::units;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{self, Write};

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// The SARIF exporter.
#[derive(Clone, Debug)]
pub struct Sarif {
    /// The root directory of the repository. SARIF calls this directory `%SRCROOT%`, and the exporter prints
    /// the paths of source files relative to this directory.
    pub root: String,
}

impl Exporter for Sarif {
    fn export(&self, report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
        let mut results = Vec::new();
        for analysis in report.analyses {
            let findings = report.reported(analysis);
            for (finding, fingerprint) in findings.iter().zip(fingerprints(&findings)) {
                results.push(self.result(analysis, finding, &fingerprint));
            }
        }
        let notifications: Vec<Value> = report.analyses.iter().filter_map(notification).collect();
        let log = json!({
            "$schema": SCHEMA,
            "version": "2.1.0",
            "runs": [{
                "tool": { "driver": {
                    "name": "edleak",
                    "version": env!("CARGO_PKG_VERSION"),
                    "rules": [
                        rule(
                            "leak",
                            "A memory leak",
                            "Memory is retained at a rate that does not diminish, beyond reasonable doubt.",
                        ),
                        rule(
                            "suspect",
                            "A suspected memory leak",
                            "Memory is retained at a rate that does not diminish, \
                             as far as the recording goes.",
                        ),
                    ],
                }},
                "columnKind": "unicodeCodePoints",
                "originalUriBaseIds": { "%SRCROOT%": { "uri": directory_uri(&self.root) } },
                "invocations": [{ "executionSuccessful": true, "toolExecutionNotifications": notifications }],
                "results": results,
            }],
        });
        serde_json::to_writer_pretty(&mut *out, &log)?;
        writeln!(out)
    }
}

/// The notification for a recording that is too short or has too little data for a verdict. SARIF has a list
/// of notifications in addition to the list of results.
fn notification(analysis: &Analysis) -> Option<Value> {
    let why = too_little(analysis)?;
    let text = format!("{}: undecided: {why}", analysis.source);
    Some(json!({ "level": "warning", "message": { "text": text } }))
}

fn rule(id: &str, name: &str, text: &str) -> Value {
    json!({
        "id": id,
        "shortDescription": { "text": name },
        "fullDescription": { "text": text },
        "defaultConfiguration": { "level": "error" },
        "properties": { "tags": ["memory", "leak"] },
    })
}

/// The fingerprint of each finding.
///
/// Several findings may have equal fingerprints, for example two calls of malloc in one function. To tell
/// equal fingerprints apart, the function adds a number to each: it numbers equal fingerprints in the order
/// of the code addresses. The order of the report would give other numbers in the next run, because the
/// report sorts leaks by rate, and rates differ from run to run.
fn fingerprints(findings: &[Finding<'_>]) -> Vec<String> {
    let mut order: Vec<usize> = (0..findings.len()).collect();
    let offsets = |finding: &Finding<'_>| {
        finding.largest().lead.stack.iter().map(|address| address.offset).collect::<Vec<_>>()
    };
    order.sort_by_key(|&i| offsets(&findings[i]));
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut all = vec![String::new(); findings.len()];
    for i in order {
        let fingerprint = findings[i].fingerprint();
        let ordinal = seen.entry(fingerprint.clone()).and_modify(|seen| *seen += 1).or_insert(1);
        all[i] = format!("{fingerprint}:{ordinal}");
    }
    all
}

impl Sarif {
    fn result(&self, analysis: &Analysis, finding: &Finding<'_>, fingerprint: &str) -> Value {
        let judgement = &finding.lead().judgement;
        let rule = if judgement.confidence == Some(Confidence::Strict) { "leak" } else { "suspect" };
        let message = format!(
            "{} leaks {} ({} growth, {} leaked in {}): {}",
            finding.name(),
            pace(finding),
            judgement.class.name(),
            units::bytes(finding.leak_bytes()),
            units::duration(analysis.header.duration_s),
            why_of(finding)
        );
        let live_bytes: u64 = finding.sites().map(|site| site.totals.live_bytes).fold(0, u64::saturating_add);
        let mut result = json!({
            "ruleId": rule,
            "ruleIndex": if rule == "leak" { 0 } else { 1 },
            "level": "error",
            "message": { "text": message },
            "partialFingerprints": { "edleakSite/v1": fingerprint },
            "properties": {
                "class": judgement.class.name(),
                // If the number of bytes is too large for a `u64`, the cast gives the greatest `u64`.
                "leak_bytes": finding.leak_bytes().round() as u64,
                "leak_count": finding.leak_count(),
                "rate_bytes_per_s": finding.rate_bytes_per_s(),
                "live_bytes": live_bytes,
                "parts": finding.parts.len(),
                "trace": analysis.source,
            },
        });
        let location = finding.headline().map(|frame| self.location(frame, &message));
        result["locations"] = location.into_iter().collect();
        if finding.together.is_some() {
            let part = |part: &Group<'_>| {
                let text = format!("{}: {} leaked", part.name(), units::bytes(part.leak_bytes));
                part.headline().map(|frame| self.location(frame, &text))
            };
            result["relatedLocations"] = finding.parts.iter().filter_map(part).collect();
        }
        let stack = |(heading, stack): (Option<String>, &JudgedSite)| {
            let frame = |frame: SiteFrame<'_>| json!({ "location": self.location(frame, &frame.name()) });
            let frames: Vec<Value> = stack.frames().map(frame).collect();
            let heading = heading.unwrap_or_else(|| "where it is allocated, innermost first".into());
            (!frames.is_empty()).then(|| json!({ "message": { "text": heading }, "frames": frames }))
        };
        let stacks: Vec<Value> = stacks_of(finding).into_iter().filter_map(stack).collect();
        if !stacks.is_empty() {
            result["stacks"] = stacks.into();
        }
        result
    }

    fn location(&self, frame: SiteFrame<'_>, message: &str) -> Value {
        let mut location = json!({ "message": { "text": message } });
        if let Some((file, line)) = frame.place() {
            location["physicalLocation"] = json!({ "artifactLocation": self.artifact(file) });
            if line > 0 {
                location["physicalLocation"]["region"] = json!({ "startLine": line });
            }
        } else if let Some(module) = &frame.address.module {
            location["physicalLocation"] = json!({ "artifactLocation": self.artifact(module) });
        }
        let name = frame.name();
        location["logicalLocations"] = json!([{ "fullyQualifiedName": name, "kind": "function" }]);
        location
    }

    fn artifact(&self, path: &str) -> Value {
        match source_path(path, &self.root) {
            absolute if absolute.starts_with('/') => json!({ "uri": format!("file://{}", uri(absolute)) }),
            relative => json!({ "uri": uri(relative).to_string(), "uriBaseId": "%SRCROOT%" }),
        }
    }
}

fn directory_uri(path: &str) -> String {
    format!("file://{}/", uri(path.trim_end_matches('/')))
}

/// The characters of a path that must be encoded in a URI. The set contains all characters except letters,
/// digits and the punctuation that a path may have.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'+')
    .remove(b'@');

fn uri(path: &str) -> impl std::fmt::Display {
    utf8_percent_encode(path, PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uris() {
        assert_eq!(uri("/a b/c++#x.c").to_string(), "/a%20b/c++%23x.c");
        assert_eq!(directory_uri("/src/"), "file:///src/");
        let sarif = Sarif { root: "/src".into() };
        assert_eq!(sarif.artifact("/src/lib/a.c"), json!({ "uri": "lib/a.c", "uriBaseId": "%SRCROOT%" }));
        assert_eq!(sarif.artifact("/usr/a.c"), json!({ "uri": "file:///usr/a.c" }));
    }
}
