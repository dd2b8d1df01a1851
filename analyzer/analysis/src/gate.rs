//! Decides which sites are listed, and whether the build may pass.
//!
//! The gate applies its rules in this order: first class and confidence, then suppressions, the baseline, and
//! the budget. For each rule, the summary shows the number of leaks that the rule removes from the report.

use crate::analysis::{Analysis, Header};
use crate::baseline::Baseline;
use crate::per_mark::PerMarkOptions;
use crate::site::{Domain, JudgedSite, Standing};
use crate::suppressions::Suppressions;
use edleak_model::classify::Confidence;
use edleak_model::growth_class::Class;

mod undecided;

pub use undecided::too_little;

/// The report mentions missing slices if more than this share of the record has no slices.
pub const MUCH_MISSING: f64 = 0.05;
/// The options of the gate.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The lowest class of leaks that are listed. If `min_class` is below `linear`, the list also contains
    /// sites that grow but do not leak.
    pub min_class: Class,
    /// Whether to list only leaks with the confidence `Strict`.
    pub strict: bool,
    /// Whether to list every site.
    pub all: bool,
    /// The gate tolerates all leaks of a recording if the sum of their rates is no more than this rate.
    pub budget_bytes_per_s: Option<f64>,
    /// The leaks of an earlier recording.
    pub baseline: Option<Baseline>,
    /// The suppression rules, which name leaks that the user accepts.
    pub suppressions: Suppressions,
    /// The marks whose iterations are judged; `None`: the sites are judged by time.
    pub per_mark: Option<PerMarkOptions>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            min_class: Class::Linear,
            strict: false,
            all: false,
            budget_bytes_per_s: None,
            baseline: None,
            suppressions: Suppressions::default(),
            per_mark: None,
        }
    }
}

/// The result of the analysis for the build.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// The recording was judged, and no leak is reported.
    Clean,
    /// The recording does not contain enough evidence for a verdict, so it may hide a leak.
    Undecided,
    /// The gate reports at least one leak.
    Leaks,
}

/// The effect of a suppression rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RuleUse {
    /// The suppression rule matched no leak.
    Unused,
    /// The suppression rule matched at least one leak, and hid all leaks that it matched.
    Used,
    /// In one of the recordings, the leaks that the rule matched exceeded the rule's budget, so the gate
    /// reports these leaks.
    Exceeded,
}

impl Outcome {
    /// The exit code of edleak-analyze for this result.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Leaks => 1,
            Self::Undecided => 2,
        }
    }
}

impl Policy {
    /// Whether the site is a leak of the class and confidence that the user asked for. The analyzer looks up
    /// the symbols of a leak for which the result is true, because later rules of the gate (such as
    /// suppressions) compare names.
    fn wants_leak(&self, site: &JudgedSite) -> bool {
        site.is_leak()
            && site.judgement.class >= self.min_class
            && (!self.strict || site.judgement.confidence == Some(Confidence::Strict))
    }

    /// Whether the options ask for this site in the list although the site is not a leak.
    fn wants_shown(&self, site: &JudgedSite) -> bool {
        let is_growing = !site.is_leak() && site.judgement.class >= self.min_class;
        self.all || (self.min_class < Class::Linear && is_growing)
    }

    /// Whether the site may appear in a report.
    pub fn wants(&self, site: &JudgedSite) -> bool {
        self.wants_leak(site) || self.wants_shown(site)
    }

    /// Decides for every site whether the report lists the site, and whether the site fails the build. A
    /// budget applies to each recording separately, so each recorded process may leak as much as the whole
    /// budget. Returns the effect of each suppression rule.
    pub fn apply(&self, analyses: &mut [Analysis]) -> Vec<RuleUse> {
        forget_given_traces(analyses);
        let mut uses = vec![RuleUse::Unused; self.suppressions.rules.len()];
        for analysis in analyses.iter_mut() {
            for site in &mut analysis.sites {
                site.standing = match () {
                    () if self.wants_leak(site) => Standing::Reported,
                    () if self.wants_shown(site) => Standing::Shown,
                    () => Standing::Unlisted,
                };
            }
            self.suppress(analysis, &mut uses);
            self.forgive_known(analysis);
        }
        self.spend_budget(analyses);
        uses
    }

    fn suppress(&self, analysis: &mut Analysis, uses: &mut [RuleUse]) {
        let mut hidden: Vec<Vec<usize>> = vec![Vec::new(); uses.len()];
        for (i, site) in analysis.sites.iter().enumerate() {
            if site.standing == Standing::Reported {
                let names: Vec<&str> = names_of(site);
                let own_name = site.name();
                let names = names.into_iter().chain([own_name.as_str()]);
                if let Some(rule) = self.suppressions.matching(names) {
                    hidden[rule].push(i);
                }
            }
        }
        for (rule, sites) in hidden.iter().enumerate() {
            if sites.is_empty() {
                continue;
            }
            let sum = |value: fn(&JudgedSite) -> f64| sites.iter().map(|&i| value(&analysis.sites[i])).sum();
            let leaked = sum(|site| site.judgement.leak_bytes as f64);
            let rate = sum(|site| site.judgement.rate_bytes_per_s);
            if self.suppressions.rules[rule].budget.is_none_or(|budget| budget.covers(leaked, rate)) {
                sites.iter().for_each(|&i| analysis.sites[i].standing = Standing::Suppressed(rule));
                uses[rule] = uses[rule].max(RuleUse::Used);
            } else {
                uses[rule] = RuleUse::Exceeded;
            }
        }
    }

    fn forgive_known(&self, analysis: &mut Analysis) {
        let Some(baseline) = &self.baseline else { return };
        let reported: Vec<usize> =
            (0..analysis.sites.len()).filter(|&i| analysis.sites[i].standing == Standing::Reported).collect();
        let leaks: Vec<&JudgedSite> = reported.iter().map(|&i| &analysis.sites[i]).collect();
        let (changes, _) = baseline.compare(&leaks);
        for (i, change) in reported.into_iter().zip(changes) {
            if change.is_known() {
                analysis.sites[i].standing = Standing::InBaseline;
            }
        }
    }

    fn spend_budget(&self, analyses: &mut [Analysis]) {
        let Some(budget) = self.budget_bytes_per_s else { return };
        let reported = |site: &&mut JudgedSite| site.standing == Standing::Reported;
        for analysis in analyses {
            let reported_now: Vec<&JudgedSite> =
                analysis.sites.iter().filter(|site| site.standing == Standing::Reported).collect();
            // Objects of pools are in the heap or in mapped memory. So the bytes of a pool are also counted
            // at a site of the heap or of mapped memory, and the leak rates of pools must not be added to the
            // leak rates of other sites. But a pool may also hand out memory that it took from malloc long
            // ago, so the pools may leak although no other site leaks. So the rate of the pools and the rate
            // of all other sites must each be within the budget.
            let rate_of = |is_pool: bool| -> f64 {
                let sites = reported_now.iter().filter(|site| (site.domain() == Domain::Pool) == is_pool);
                sites.map(|site| site.judgement.rate_bytes_per_s).sum()
            };
            if rate_of(false).max(rate_of(true)) <= budget {
                analysis
                    .sites
                    .iter_mut()
                    .filter(reported)
                    .for_each(|site| site.standing = Standing::Tolerated);
            }
        }
    }
}

/// Every name of the site with which the patterns of suppressions are compared.
fn names_of(site: &JudgedSite) -> Vec<&str> {
    let frames = site.frames().filter_map(|frame| frame.frame);
    let functions = frames.clone().filter_map(|frame| frame.function.as_deref());
    let files = frames.filter_map(|frame| frame.file.as_deref());
    let modules = site.stack.iter().filter_map(|address| address.module.as_deref());
    functions.chain(files).chain(modules).collect()
}

/// The result of one judged recording for the build.
pub fn outcome(analysis: &Analysis) -> Outcome {
    if analysis.sites.iter().any(|site| site.standing == Standing::Reported) {
        return Outcome::Leaks;
    }
    if too_little(analysis).is_some() { Outcome::Undecided } else { Outcome::Clean }
}

/// Removes from each analysis the names of those earlier traces of the same process that are analyzed, too.
/// The names in an anonymized trace are hashes, so the process ID decides if all earlier traces are there.
fn forget_given_traces(analyses: &mut [Analysis]) {
    let name = |analysis: &Analysis| {
        let path = std::path::Path::new(&analysis.source);
        path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    };
    let mut ended: Vec<(u32, u64, String)> = analyses
        .iter()
        .filter(|analysis| analysis.header.is_executed)
        .map(|analysis| (analysis.header.pid, analysis.header.started_unix_ns, name(analysis)))
        .collect();
    // A trace may be given twice.
    ended.sort();
    ended.dedup_by_key(|(pid, started, _)| (*pid, *started));
    let is_hash = |name: &String| name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    for Header { pid, started_unix_ns, earlier_traces, .. } in analyses.iter_mut().map(|a| &mut a.header) {
        let given = ended.iter().filter(|(of, at, _)| of == pid && at < started_unix_ns);
        if earlier_traces.iter().all(is_hash) && given.clone().count() >= earlier_traces.len() {
            earlier_traces.clear();
        }
        earlier_traces.retain(|trace| !given.clone().any(|(_, _, name)| name == trace));
    }
}
