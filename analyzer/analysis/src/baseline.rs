//! A baseline is the set of leaks of an earlier recording. With a baseline, the gate reports only two kinds
//! of leaks: leaks that are not in the baseline, and leaks that are clearly faster than in the baseline.
//!
//! A baseline is read from a recording, which edleak-analyze analyzes again with its current model, or from a
//! report saved with `--format json`. One recording may list a leak as a caller, and the other recording may
//! list the same leak as several stacks of this caller. In this case, edleak compares the rate of the caller
//! in one recording with the sum of the rates of its stacks in the other.

use crate::analysis::Analysis;
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{Address, GENERATED_NAME, frames};
use crate::identity::Identity;
use crate::site::{INJECTED_NAME, JudgedSite, Kind};
use edleak_format::SymbolFrame;
use serde::Deserialize;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Version of the format of the JSON report, which the crate `report` writes and this module reads as a
/// baseline. Increase the version with every change of the format after which older versions of edleak cannot
/// read a report.
pub const FORMAT_VERSION: u32 = 1;

/// Least ratio of the new rate to the old rate at which a leak counts as faster than in the baseline.
///
/// If two recordings have the same leak, the two estimates of its rate differ by up to a quarter. Errors of
/// the two estimates cannot make the new rate 1.5 times the old rate, so a leak with this ratio has really
/// become faster.
const FASTER: f64 = 1.5;

/// One leak of the baseline.
#[derive(Clone, Debug)]
pub struct KnownLeak {
    /// The keys by which edleak recognizes this leak in another recording.
    pub(crate) identity: Identity,
    /// The name of the leak, as a report prints it.
    pub name: String,
    /// The rate of the leak in the earlier recording.
    pub rate_bytes_per_s: f64,
    /// The offset of the leaking code in its module; a baseline sorts its leaks by this offset.
    offset: u64,
}

/// The leaks of an earlier recording.
#[derive(Clone, Default, Debug)]
pub struct Baseline {
    /// The leaks, sorted by the offset of their code in its module.
    pub(crate) leaks: Vec<KnownLeak>,
}

/// The change of a leak since the baseline was recorded.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Change {
    /// The baseline does not contain the leak.
    New,
    /// The baseline contains the leak, but with a clearly lower rate than now. The number is the rate in the
    /// baseline, in bytes per second.
    Faster(f64),
    /// The baseline contains the leak with about the same rate as now. The number is the rate in the
    /// baseline, in bytes per second.
    Same(f64),
    /// The baseline contains the leak, but with a clearly higher rate than now. The number is the rate in the
    /// baseline, in bytes per second.
    Slower(f64),
}

impl Change {
    fn of(was: f64, is: f64) -> Self {
        match () {
            () if is > was * FASTER => Self::Faster(was),
            () if is * FASTER < was => Self::Slower(was),
            () => Self::Same(was),
        }
    }

    /// Whether the baseline has the leak with about this rate or a higher rate, so that the gate does not
    /// report it.
    pub(crate) fn is_known(self) -> bool {
        matches!(self, Self::Same(_) | Self::Slower(_))
    }
}

impl Baseline {
    /// Makes a baseline of the leaks of an analyzed recording. The sites must have symbols, so that edleak
    /// can find the leaks again after a rebuild of the program.
    pub fn of(analysis: &Analysis) -> Self {
        Self::of_leaks(analysis.sites.iter().filter(|site| site.is_leak()).map(known_leak))
    }

    fn of_leaks(leaks: impl Iterator<Item = KnownLeak>) -> Self {
        let mut leaks: Vec<KnownLeak> = leaks.collect();
        leaks.sort_by_key(|leak| leak.offset);
        Self { leaks }
    }

    /// Reads a saved report; `None`: the file is not a saved report.
    ///
    /// # Errors
    /// The report is not complete, or its format is newer than this version of edleak.
    pub fn read_json(path: &Path) -> Option<Result<Self>> {
        let mut start = [0; 4096];
        let mut file = File::open(path).ok()?;
        let length = file.read(&mut start).ok()?;
        if !crate::load::is_report(&start[..length]) {
            return None;
        }
        Some(Self::from_json(&std::fs::read(path).ok()?))
    }

    /// Reads the text of a saved report.
    ///
    /// # Errors
    /// The text is not a complete report, or its format is newer than this version of edleak.
    fn from_json(text: &[u8]) -> Result<Self> {
        let report: SavedReport = serde_json::from_slice(text).map_err(|error| {
            Error::new(ErrorKind::Baseline, format!("the report is incomplete: {error}"))
                .with_remedy("save it again with `--format json`")
        })?;
        let version = report.format_version;
        if version > FORMAT_VERSION {
            let message = format!("report format {version} is newer than {FORMAT_VERSION}");
            return Err(Error::new(ErrorKind::Baseline, message).with_remedy("use a newer edleak-analyze"));
        }
        let reports = report.traces.into_iter().chain([SavedTrace { sites: report.sites }]);
        let leaks = reports
            .flat_map(|trace| trace.sites)
            .filter(|site| site.verdict == "leak")
            .map(SavedSite::known_leak);
        Ok(Self::of_leaks(leaks))
    }

    /// Compares `leaks` with the baseline. Returns two lists: the change of each leak, in the order of
    /// `leaks`, and the leaks of the baseline that are not in `leaks`.
    pub(crate) fn compare(&self, leaks: &[&JudgedSite]) -> (Vec<Change>, Vec<&KnownLeak>) {
        let mut order: Vec<usize> = (0..leaks.len()).collect();
        order.sort_by_key(|&i| leaks[i].stack.first().and_then(|address| address.offset));
        let now: Vec<Identity> = leaks.iter().map(|leak| Identity::of(leak)).collect();
        let mut changes = vec![None; leaks.len()];
        let mut met = vec![false; self.leaks.len()];

        // The first pass of this loop pairs leaks with the same exact code, and the second pass pairs leaks
        // whose functions have the same names. In the other order, a leak could be paired with another leak
        // that only has the same names.
        for is_same in [Identity::is_same_code, Identity::is_same_function] {
            for &i in &order {
                let is_match =
                    |(k, known): &(usize, &KnownLeak)| !met[*k] && is_same(&known.identity, &now[i]);
                if changes[i].is_some() {
                    continue;
                }
                if let Some((k, known)) = self.leaks.iter().enumerate().find(is_match) {
                    met[k] = true;
                    changes[i] =
                        Some(Change::of(known.rate_bytes_per_s, leaks[i].judgement.rate_bytes_per_s));
                }
            }
        }
        // If a leak has no match in the baseline, one recording may list it as a caller, and the other
        // recording as stacks of this caller. So the function adds up all leaks of the caller in each
        // recording, and compares the two sums.
        for &i in &order {
            if changes[i].is_some() {
                continue;
            }
            let caller = caller_of(&now[i]);
            let family: Vec<usize> = (0..self.leaks.len())
                .filter(|&k| is_same_caller(caller_of(&self.leaks[k].identity), caller))
                .collect();
            let was_watched = family.iter().any(|&k| self.leaks[k].identity.caller.is_some());
            if family.is_empty() || was_watched == now[i].caller.is_some() {
                continue;
            }
            family.iter().for_each(|&k| met[k] = true);
            let was = family.iter().map(|&k| self.leaks[k].rate_bytes_per_s).sum();
            let is = (0..leaks.len())
                .filter(|&other| is_same_caller(caller_of(&now[other]), caller))
                .map(|other| leaks[other].judgement.rate_bytes_per_s)
                .sum();
            changes[i] = Some(Change::of(was, is));
        }
        let gone = self.leaks.iter().zip(met).filter(|(_, met)| !met).map(|(known, _)| known).collect();
        (changes.into_iter().map(|change| change.unwrap_or(Change::New)).collect(), gone)
    }
}

fn caller_of(identity: &Identity) -> &Identity {
    identity.caller.as_deref().unwrap_or(identity)
}

fn is_same_caller(one: &Identity, other: &Identity) -> bool {
    one.is_same_code(other) || one.is_same_function(other)
}

fn known_leak(site: &JudgedSite) -> KnownLeak {
    KnownLeak {
        identity: Identity::of(site),
        name: site.name(),
        rate_bytes_per_s: site.judgement.rate_bytes_per_s,
        offset: site.stack.first().and_then(|address| address.offset).unwrap_or(0),
    }
}

/// The part of a saved report that a baseline needs. The parser skips unknown fields, because reports of
/// later versions have additional fields.
#[derive(Deserialize)]
struct SavedReport {
    format_version: u32,
    #[serde(default)]
    sites: Vec<SavedSite>,
    #[serde(default)]
    traces: Vec<SavedTrace>,
}

#[derive(Deserialize)]
struct SavedTrace {
    #[serde(default)]
    sites: Vec<SavedSite>,
}

#[derive(Deserialize)]
struct SavedSite {
    verdict: String,
    #[serde(default)]
    rate_bytes_per_s: f64,
    parent: Option<serde_json::Value>,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    stack: Vec<SavedFrame>,
}

#[derive(Deserialize)]
struct SavedFrame {
    address: Option<String>,
    module: Option<String>,
    build_id: Option<String>,
    offset: Option<String>,
    function: Option<String>,
    file: Option<String>,
    #[serde(default)]
    line: u32,
    #[serde(default)]
    inlined: bool,
}

impl SavedSite {
    fn known_leak(self) -> KnownLeak {
        let mut stack: Vec<(Address, Vec<SymbolFrame>)> = Vec::new();
        let mut goes_on = false;
        for saved in self.stack {
            // In a saved report, an inlined frame comes before the frame into which the compiler inlined it,
            // and the two frames have the same address.
            if !goes_on || stack.is_empty() {
                let is_generated =
                    saved.module.is_none() && saved.function.as_deref() == Some(GENERATED_NAME);
                let address = Address {
                    address: hex(saved.address.as_deref()).unwrap_or(0),
                    is_generated,
                    module: saved.module,
                    build_id: saved.build_id.unwrap_or_default(),
                    offset: hex(saved.offset.as_deref()),
                    ..Address::default()
                };
                stack.push((address, Vec::new()));
            }
            goes_on = saved.inlined;
            if let Some((_, frames)) =
                stack.last_mut().filter(|_| saved.function.is_some() || saved.file.is_some())
            {
                let (function, file, line) = (saved.function, saved.file, saved.line);
                frames.push(SymbolFrame { function, file, line, is_inlined: saved.inlined });
            }
        }
        let with_frames =
            |(address, frames): (Address, Vec<SymbolFrame>)| Address { frames: frames.into(), ..address };
        let stack: Vec<Address> = stack.into_iter().map(with_frames).collect();
        let kind = match (self.kind.as_str(), &self.parent) {
            ("injected", _) => Kind::Injected,
            ("mapping", _) => Kind::Mapping,
            ("allocator", _) => Kind::Allocator,
            ("pool", _) => Kind::Pool,
            (_, Some(parent)) if !parent.is_null() => Kind::Stack,
            _ => Kind::Caller,
        };
        let name = frames(&stack).next().map_or_else(|| "?".into(), |frame| frame.name());
        KnownLeak {
            identity: Identity::new(kind, &stack),
            name: if kind == Kind::Injected { INJECTED_NAME.into() } else { name },
            rate_bytes_per_s: self.rate_bytes_per_s,
            offset: stack.first().and_then(|address| address.offset).unwrap_or(0),
        }
    }
}

fn hex(text: Option<&str>) -> Option<u64> {
    u64::from_str_radix(text?.trim_start_matches("0x"), 16).ok()
}
