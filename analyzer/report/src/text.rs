//! The report as text for a person, in 80 columns.
//!
//! The report begins with the leaks; the leak with the highest rate comes first. A watched caller and its
//! stacks together are one leak. After the leaks, the report gives the totals, the events that the recording
//! missed, and, if possible, advice for the next step.

mod names;
mod style;
pub(crate) mod summary;

pub(crate) use names::fitted;
pub(crate) use style::columns;
pub use style::{Style, WIDTH, fill, printable};

use super::{CALLER_IS_UNKNOWN, CURVE_COLUMNS, Exporter, Report, grow_together, pace, why};
use edleak_analysis::analysis::Analysis;
use edleak_analysis::finding::{Finding, Together};
use edleak_analysis::frame::{Address, SiteFrame, frames};
use edleak_analysis::group::{Group, Share};
use edleak_analysis::site::{Domain, SiteLabel, Standing};
use edleak_binary::names::short;
use edleak_model::classify::Confidence;
use edleak_model::growth_kind::GrowthKind;
use edleak_text::units;
use std::io::{self, Write};
use style::Ink;

/// Maximum number of frames that the report shows for one stack.
const MAX_FRAMES: usize = 32;
/// Maximum number of stacks that the report shows for one leak.
const MAX_STACKS: usize = 8;
/// Maximum number of parts that the report shows for one leak. The parts with the most leaked bytes come
/// first.
const MAX_PARTS: usize = 12;
/// If a leak began after the first 5 % of the record, the report gives the time at which the leak began.
const BEGAN_LATE: f64 = 0.05;
const INDENT: &str = "   ";

/// The text exporter.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// The colours and characters that the terminal can show.
    pub style: Style,
}

impl Exporter for Text {
    fn export(&self, report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
        for (i, analysis) in report.analyses.iter().enumerate() {
            if i > 0 {
                writeln!(out)?;
            }
            self.header(analysis, out)?;
            self.leaks(report, analysis, out)?;
            self.shown(report, analysis, out)?;
            summary::write(self.style, report, analysis, out)?;
        }
        summary::write_rules(self.style, report, out)
    }
}

impl Text {
    fn header(&self, analysis: &Analysis, out: &mut dyn Write) -> io::Result<()> {
        let header = &analysis.header;
        let command = if header.command.is_empty() {
            analysis.source.clone()
        } else {
            header.command.join(" ").replace(['\n', '\t'], " ")
        };
        let pid = if header.pid == 0 { String::new() } else { format!("pid {}", header.pid) };
        let command = self.style.clip_end(&printable(&command), WIDTH - pid.len() - "edleak: ".len() - 2);
        let gap = WIDTH - "edleak: ".len() - columns(&command) - pid.len();
        let line = format!("edleak: {}{:gap$}{pid}", self.style.paint(Ink::Strong, &command), "");
        writeln!(out, "{}", line.trim_end())?;
        let mut recorded = format!(
            "{} in {}",
            units::duration(header.duration_s),
            units::plural(header.slices, "slice", "slices")
        );
        if header.period_s > 0.0 {
            recorded += &format!(", one every {}", units::duration(header.period_s));
        }
        match &header.end {
            Some(end) => recorded += &format!("; {end}"),
            None if header.pid != 0 => recorded += "; the recording was cut short, or still runs",
            None => {}
        }
        fill(&recorded, "", "", WIDTH).iter().try_for_each(|line| writeln!(out, "{line}"))?;
        let growth = analysis.growth.sentence().filter(|_| analysis.growth.kind != GrowthKind::None);
        let unseen = analysis.mapped.as_ref().and_then(|mapped| mapped.unseen.as_ref());
        let lines = growth.into_iter().chain(unseen.map(|unseen| unseen.sentence()));
        for sentence in lines {
            fill(&printable(&sentence), "growth: ", "        ", WIDTH)
                .iter()
                .try_for_each(|line| writeln!(out, "{line}"))?;
        }
        Ok(())
    }

    fn leaks(&self, report: &Report<'_>, analysis: &Analysis, out: &mut dyn Write) -> io::Result<()> {
        let mut number = 0;
        for domain in Domain::ALL {
            let all = report.findings(analysis).into_iter();
            let findings: Vec<_> = all.filter(|finding| finding.lead().domain() == domain).collect();
            if domain == Domain::Mapping && !findings.is_empty() {
                let lost = analysis.mapped.as_ref().map_or(0, |mapped| mapped.lost_events);
                let least = match lost {
                    0 => String::new(),
                    lost => format!(", at least: {} lost", units::plural(lost, "call was", "calls were")),
                };
                let heading = format!("Mapped memory (mmap and its kin, bytes of address space{least}):");
                writeln!(out)?;
                writeln!(out, "{}", self.style.paint(Ink::Strong, &heading))?;
            }
            if domain == Domain::Pool && !findings.is_empty() {
                let heading = "Pools (objects that the program's own pools hand out; their bytes are also in \
                               the heap or in mapped memory, and no total counts them twice):";
                writeln!(out)?;
                for line in fill(heading, "", "", WIDTH) {
                    writeln!(out, "{}", self.style.paint(Ink::Strong, &line))?;
                }
            }
            for finding in &findings {
                number += 1;
                writeln!(out)?;
                self.leak(number, finding, analysis.header.duration_s, out)?;
            }
        }
        Ok(())
    }

    fn leak(
        &self,
        number: usize,
        finding: &Finding<'_>,
        duration_s: f64,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let lead = finding.lead();
        let (word, ink) = match (lead.standing, lead.judgement.confidence) {
            (Standing::Tolerated, _) => ("TOLERATED", Ink::Faint),
            (_, Some(Confidence::Suspect)) => ("SUSPECT", Ink::Warning),
            _ => ("LEAK", Ink::Alarm),
        };
        let class = if lead.per_mark.is_some() { "" } else { lead.judgement.class.name() };
        let leak_bytes = finding.leak_bytes();
        let by_time = || {
            format!(
                "{:>11}  {:>16}  {:>22}",
                units::rate(finding.rate_bytes_per_s()),
                format!("{} leaked", units::bytes(leak_bytes)),
                finding.leak_count().map_or_else(String::new, |count| match lead.domain() {
                    Domain::Heap => format!("in {}", units::plural(count, "allocation", "allocations")),
                    Domain::Mapping => format!("in {}", units::plural(count, "mapping", "mappings")),
                    Domain::Pool => format!("in {}", units::plural(count, "object", "objects")),
                }),
            )
        };
        let figures = if lead.per_mark.is_some() { pace(finding) } else { by_time() };
        let title = format!("{number}. {} {class}", self.style.paint(ink, word));
        let gap = (WIDTH - columns(&figures)).saturating_sub(columns(&format!("{number}. {word} {class}")));
        let figures = self.style.paint(Ink::Strong, figures.trim_end());
        writeln!(out, "{title}{:gap$}{figures}", "")?;

        match finding.together {
            None => self.place(finding.largest(), out)?,
            Some(Together::Below(frame)) => {
                for line in self.frame_lines(frame, WIDTH - INDENT.len()) {
                    writeln!(out, "{INDENT}{line}")?;
                }
                writeln!(out, "{INDENT}{} below this function", grow_together(finding))?;
            }
            Some(Together::ByStep) => {
                if let Some(frame) = finding.headline() {
                    for line in self.frame_lines(frame, WIDTH - INDENT.len()) {
                        writeln!(out, "{INDENT}{line}")?;
                    }
                }
                let text = format!("{}; {CALLER_IS_UNKNOWN}", grow_together(finding));
                self.paragraph(&text, INDENT, INDENT, out)?;
            }
        }
        // If the program frees everything before it ends, the last value of the curve is lower than the
        // leaked bytes; the report then gives the highest value of the curve.
        let (from, last) = (finding.levels.first(), finding.levels.last());
        let to = if last < leak_bytes { finding.levels.highest() } else { last };
        let figures = format!("{} to {} live", units::bytes(from), units::bytes(to));
        // If the verdict is computed from marks, the recording may have too few slices for a curve. If all
        // values of the curve are 0, the report shows no curve.
        if lead.per_mark.is_none() || to > 0.0 {
            writeln!(
                out,
                "{INDENT}{}  {figures}",
                self.style.paint(ink, &self.style.sparkline(&finding.levels.at(CURVE_COLUMNS)))
            )?;
        }
        if finding.is_freed_at_end() {
            // An exit handler or a destructor may free leaked memory when the program ends. Memory that grew
            // until the program ended is a leak, even if it was freed at the end.
            writeln!(
                out,
                "{INDENT}{}",
                self.style.paint(Ink::Faint, "most of it was freed when the program ended")
            )?;
        }
        let mut reason = printable(&why(lead));
        if finding.began_s() > BEGAN_LATE * duration_s {
            reason = format!("began at {}; {reason}", units::duration(finding.began_s()));
        }
        self.paragraph(&reason, &format!("{INDENT}why: "), &format!("{INDENT}     "), out)?;
        match finding.together {
            Some(_) => self.parts(finding, out),
            None => self.stacks(&finding.largest().shares, out),
        }
    }

    fn paragraph(&self, text: &str, first: &str, rest: &str, out: &mut dyn Write) -> io::Result<()> {
        fill(text, first, rest, WIDTH).iter().try_for_each(|line| writeln!(out, "{line}"))
    }

    /// Writes the function of a leak, its file and line, and its module. If an inlined function made the
    /// allocation, the text also names this inlined function.
    fn place(&self, part: &Group<'_>, out: &mut dyn Write) -> io::Result<()> {
        let site = part.site;
        let Some(frame) = part.headline() else {
            return writeln!(out, "{INDENT}{}", self.style.paint(Ink::Strong, &printable(&site.name())));
        };
        for line in self.frame_lines(frame, WIDTH - INDENT.len()) {
            writeln!(out, "{INDENT}{line}")?;
        }
        if part.depth > 0 {
            let width = WIDTH - INDENT.len() - "through ".len();
            let text = format!("through {}", self.fitted(&site.name(), width));
            writeln!(out, "{INDENT}{}", self.style.paint(Ink::Faint, &text))?;
        }
        if let Some(pool) = &site.pool {
            let named =
                if pool.is_empty() { "a pool without a name".into() } else { format!("pool `{pool}`") };
            let function = site.pool_function().map(SiteFrame::name).unwrap_or_default();
            let text = format!("from {}, through ", printable(&named));
            let text = format!(
                "{text}{}",
                self.fitted(&function, (WIDTH - INDENT.len()).saturating_sub(columns(&text)))
            );
            writeln!(out, "{INDENT}{}", self.style.paint(Ink::Faint, &text))?;
        }
        let inner = site.frames().take_while(|inner| !is_same(*inner, frame)).last();
        let is_one_frame = part.depth == 0 && site.stack.len() == 1 && site.pool.is_none();
        if let Some(inner) = inner.filter(|_| is_one_frame) {
            let width = WIDTH - INDENT.len() - "through , inlined".len();
            let text = format!("through {}, inlined", self.fitted(&inner.name(), width));
            writeln!(out, "{INDENT}{}", self.style.paint(Ink::Faint, &text))?;
        }
        // To record the stacks of a site, the user passes the site's number to `edleak-record --watch
        // TRACE#NUMBER`.
        let number = match site.label {
            SiteLabel::Number(number) => format!("site {number}"),
            SiteLabel::Text(_) => String::new(),
        };
        let place = match &frame.address.module {
            Some(module) => {
                let number = if number.is_empty() { number } else { format!(", {number}") };
                let width = WIDTH - INDENT.len() - "in ".len() - columns(&number);
                format!("in {}{number}", self.style.clip_start(&printable(module), width))
            }
            None => number,
        };
        if !place.is_empty() {
            writeln!(out, "{INDENT}{}", self.style.paint(Ink::Faint, &place))?;
        }
        Ok(())
    }

    /// The name of a function, shortened to at most `width` columns and without control characters.
    fn fitted(&self, name: &str, width: usize) -> String {
        names::fitted(self.style, &printable(name), width)
    }

    /// The text `function at file:line`, on one line of `width` columns if it fits, else on two lines.
    fn frame_lines(&self, frame: SiteFrame<'_>, width: usize) -> Vec<String> {
        let name = printable(&frame.name());
        let (function, fitted) = (short(&name), || self.fitted(&name, width));
        let strong = |text: &str| self.style.paint(Ink::Strong, text);
        let Some((file, line)) = frame.place() else {
            return vec![strong(&fitted())];
        };
        let place = if line == 0 { printable(file) } else { format!("{}:{line}", printable(file)) };
        if columns(&function) + " at ".len() + columns(&place) <= width {
            return vec![format!("{} at {}", strong(&function), self.style.paint(Ink::Place, &place))];
        }
        let place = self.style.clip_start(&place, width - "  at ".len());
        vec![strong(&fitted()), format!("  at {}", self.style.paint(Ink::Place, &place))]
    }

    /// Writes the stacks of a site as the branches of a tree, each with its share of the leaked bytes.
    fn stacks(&self, shares: &[Share<'_>], out: &mut dyn Write) -> io::Result<()> {
        let style = self.style;
        if shares.is_empty() {
            return Ok(());
        }
        writeln!(out, "{INDENT}stacks, by share of the leaked bytes:")?;
        let shown = shares.len().min(MAX_STACKS);
        let more = shares.len() - shown;
        for (i, share) in shares[..shown].iter().enumerate() {
            let is_last = i + 1 == shown && more == 0;
            let (branch, stem) = match (style.unicode, is_last) {
                (true, false) => ("├─", "│ "),
                (true, true) => ("└─", "  "),
                (false, false) => ("|-", "| "),
                (false, true) => ("`-", "  "),
            };
            let first = format!("{INDENT}{branch}{:>4} %  ", (100.0 * share.of_leaked).round());
            let rest = format!("{INDENT}{stem}{:>8}", "");
            let lines = match share.site {
                Some(site) => {
                    let before = i.checked_sub(1).and_then(|before| shares[before].site);
                    let shared = before.map_or(0, |before| shared_tail(&before.stack, &site.stack));
                    let own = &site.stack[..site.stack.len() - shared];
                    let is_cut = site.is_stack_cut && shared == 0;
                    let mut lines = self.stack_lines(own, is_cut, WIDTH - columns(&rest));
                    if shared > 0 {
                        let frames = units::plural(shared as u64, "caller", "callers");
                        lines.push(self.style.paint(Ink::Faint, &format!("then {frames} as above")));
                    }
                    lines
                }
                None => vec!["(allocated while the site was not watched)".into()],
            };
            for (j, line) in lines.iter().enumerate() {
                writeln!(out, "{}{line}", if j == 0 { &first } else { &rest })?;
            }
        }
        if more > 0 {
            let branch = if style.unicode { "└─" } else { "`-" };
            writeln!(out, "{INDENT}{branch} {} more (`--format json` has them)", units::count(more as u64))?;
        }
        Ok(())
    }

    /// Writes the parts of a leak, each with the frames of its first stack. The outer frames that are the
    /// same in all parts are written only once, after the last part.
    fn parts(&self, finding: &Finding<'_>, out: &mut dyn Write) -> io::Result<()> {
        let style = self.style;
        writeln!(out, "{INDENT}parts, by share of the leaked bytes:")?;
        let tail = finding.shared_tail();
        let has_tail = tail > 0;
        let shown = finding.parts.len().min(MAX_PARTS);
        for (i, part) in finding.parts[..shown].iter().enumerate() {
            let is_last = i + 1 == shown && shown == finding.parts.len() && !has_tail;
            let (branch, stem) = match (style.unicode, is_last) {
                (true, false) => ("├─", "│ "),
                (true, true) => ("└─", "  "),
                (false, false) => ("|-", "| "),
                (false, true) => ("`-", "  "),
            };
            let share = (100.0 * part.leak_bytes / finding.leak_bytes().max(1.0)).round();
            let first = format!("{INDENT}{branch}{share:>4} %  ");
            let rest = format!("{INDENT}{stem}{:>8}", "");
            for (j, line) in self.part_lines(part, tail, WIDTH - columns(&rest)).iter().enumerate() {
                writeln!(out, "{}{line}", if j == 0 { &first } else { &rest })?;
            }
        }
        let (branch, stem) = if style.unicode { ("└─", "  ") } else { ("`-", "  ") };
        let more = finding.parts.len() - shown;
        if more > 0 {
            let branch = match (has_tail, style.unicode) {
                (true, true) => "├─",
                (true, false) => "|-",
                (false, _) => branch,
            };
            writeln!(out, "{INDENT}{branch} {} more (`--format json` has them)", units::count(more as u64))?;
        }
        let stack = finding.parts.iter().find_map(|part| part.stacks().next());
        if let Some(stack) = stack.filter(|_| has_tail) {
            writeln!(out, "{INDENT}{branch} all below:")?;
            let outer = &stack.stack[stack.stack.len() - tail..];
            let rest = format!("{INDENT}{stem}{:>8}", "");
            let lines = self.stack_lines(outer, stack.is_stack_cut, WIDTH - columns(&rest));
            lines.iter().try_for_each(|line| writeln!(out, "{rest}{line}"))?;
        }
        Ok(())
    }

    /// The lines of one part of a leak: its size and its site number, and then its first stack, without the
    /// outer frames that are the same in all parts.
    fn part_lines(&self, part: &Group<'_>, tail: usize, width: usize) -> Vec<String> {
        let count = part.leak_count.map_or_else(String::new, |count| format!(" in {}", units::count(count)));
        let number = match part.site.label {
            SiteLabel::Number(number) => format!(", site {number}"),
            SiteLabel::Text(_) => String::new(),
        };
        let note = format!("{}{count}{number}", units::bytes(part.leak_bytes));
        let stack = part.stacks().next();
        let own =
            stack.map_or(&part.site.stack[..], |stack| &stack.stack[..(stack.stack.len() - tail).max(1)]);
        let mut lines = vec![self.style.paint(Ink::Faint, &note)];
        lines.extend(self.stack_lines(own, false, width));
        if lines.len() == 1 {
            lines.push(self.fitted(&part.name(), width));
        }
        let others = part.stacks().count().saturating_sub(1);
        if others > 0 {
            let text = format!("and {} of it", units::plural(others as u64, "other stack", "other stacks"));
            lines.push(self.style.paint(Ink::Faint, &text));
        }
        lines
    }

    /// Makes the lines of the report for one stack. If a frame repeats, as in recursion, it gets one line
    /// with the number of repetitions. If several frames in a row belong to the runtime of a language, they
    /// get one line together. The line for several runtime frames shows the outermost of these frames.
    fn stack_lines(&self, stack: &[Address], is_cut: bool, width: usize) -> Vec<String> {
        let mut runs: Vec<(SiteFrame<'_>, Run)> = Vec::new();
        for frame in frames(stack) {
            match runs.last_mut() {
                Some((last, Run::Repeated(times))) if is_same(*last, frame) => *times += 1,
                _ => runs.push((frame, Run::Repeated(1))),
            }
        }
        let mut lines = Vec::new();
        let runs = folded(runs);
        for (frame, run) in runs.iter().take(MAX_FRAMES) {
            let note = match run {
                Run::Repeated(1) => String::new(),
                Run::Repeated(times) => format!(" ({times} times)"),
                Run::Runtime(inside) => format!(" ({inside} runtime frames inside)"),
            };
            if let Run::Runtime(_) = run {
                let name = self.fitted(&frame.name(), width.saturating_sub(columns(&note)));
                lines.push(name + &self.style.paint(Ink::Faint, &note));
                continue;
            }
            let mut own = self.frame_lines(*frame, width - if note.is_empty() { 0 } else { 8 });
            if let Some(last) = own.last_mut() {
                *last += &self.style.paint(Ink::Faint, &note);
            }
            lines.extend(own);
        }
        let left = runs.len().saturating_sub(MAX_FRAMES);
        if left > 0 {
            lines.push(format!(
                "{} {} further out",
                self.style.ellipsis(),
                units::plural(left as u64, "frame", "frames")
            ));
        }
        if is_cut {
            lines.push(self.style.paint(Ink::Faint, "(the stack goes on, but was not walked further)"));
        }
        lines
    }

    /// Writes one line for each site that is listed although it does not fail the gate.
    fn shown(&self, report: &Report<'_>, analysis: &Analysis, out: &mut dyn Write) -> io::Result<()> {
        let shown = report.shown(analysis);
        if shown.is_empty() {
            return Ok(());
        }
        writeln!(out)?;
        let heading =
            format!("{:>9} {:<8} {:>8} {:>8} {:>5}  site", "verdict", "class", "live", "count", "id");
        writeln!(out, "{}", self.style.paint(Ink::Faint, &heading))?;
        for site in shown {
            let figures = format!(
                "{:>9} {:<8} {:>8} {:>8} {:>5}",
                crate::json::words::verdict_name(site.judgement.verdict),
                site.judgement.class.name(),
                units::bytes(site.totals.live_bytes as f64),
                site.totals.live_count.map_or_else(|| "?".into(), |count| count.to_string()),
                match site.label {
                    SiteLabel::Number(number) => number.to_string(),
                    SiteLabel::Text(_) => String::new(),
                },
            );
            let place = site.headline().and_then(|frame| frame.place());
            let place = place.map_or_else(String::new, |(file, line)| {
                format!(" {}:{line}", edleak_analysis::frame::base_name(file))
            });
            let width = WIDTH.saturating_sub(columns(&figures) + 2).max(20);
            let name = self.fitted(&site.name(), width.saturating_sub(columns(&place)).max(width / 2));
            writeln!(out, "{figures}  {}", self.style.clip_end(&(name + &printable(&place)), width))?;
        }
        Ok(())
    }
}

/// The number of outer frames that two stacks share. If the stacks share only one frame, the function returns
/// 0, because the line "then 1 caller as above" would save no line.
fn shared_tail(one: &[Address], other: &[Address]) -> usize {
    const WORTH_IT: usize = 2;
    let is_same = |(one, other): &(&Address, &Address)| {
        (one.address, one.offset, &one.module) == (other.address, other.offset, &other.module)
    };
    let shared = one.iter().rev().zip(other.iter().rev()).take_while(is_same).count();
    // The innermost frame of a stack is always printed, so it never counts as shared.
    let shared = shared.min(other.len().saturating_sub(1));
    if shared >= WORTH_IT { shared } else { 0 }
}

/// One line of a printed stack may stand for several frames; this type says for which frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Run {
    /// One frame; the number says how many times in a row the stack has this frame.
    Repeated(usize),
    /// A frame of a language's runtime, together with the runtime frames that it called; the number counts
    /// the frames that it called.
    Runtime(usize),
}

/// If at least `WORTH_IT` frames in a row belong to a language's runtime, replaces them by the outermost of
/// these frames.
fn folded(runs: Vec<(SiteFrame<'_>, Run)>) -> Vec<(SiteFrame<'_>, Run)> {
    const WORTH_IT: usize = 3;
    let mut all = Vec::with_capacity(runs.len());
    let same_kind =
        |one: &(SiteFrame<'_>, Run), other: &(SiteFrame<'_>, Run)| one.0.is_runtime() && other.0.is_runtime();
    for part in runs.chunk_by(same_kind) {
        match part.last() {
            Some((outermost, _)) if part.len() >= WORTH_IT => {
                all.push((*outermost, Run::Runtime(part.len() - 1)));
            }
            _ => all.extend_from_slice(part),
        }
    }
    all
}

fn is_same(one: SiteFrame<'_>, other: SiteFrame<'_>) -> bool {
    one.name() == other.name() && one.place() == other.place()
}
