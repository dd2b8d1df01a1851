//! Phase 5: finds the symbols of the sites that a report may list. The search for symbols takes most of the
//! time of an analysis, so the analyzer does not search symbols for sites that no report lists.

use crate::analysis::Analysis;
use crate::load::Input;
use crate::site::{JudgedSite, SiteLabel};
use edleak_binary::{Request, Symbolizer};
use std::collections::HashSet;

/// Finds the symbols of every site for which `wanted` is true. For a stack, the function also finds the
/// symbols of its caller; for a site that was judged together with its stacks, also the symbols of these
/// stacks.
pub fn name_sites(
    analysis: &mut Analysis,
    recording: &Input,
    symbolizer: &Symbolizer,
    wanted: impl Fn(&JudgedSite) -> bool,
) {
    let Input::Trace(trace) = recording else { return };
    let parents: HashSet<SiteLabel> =
        analysis.sites.iter().filter(|site| wanted(site)).filter_map(|site| site.parent.clone()).collect();
    let together = analysis.sites.iter().filter(|site| site.judged_with_stacks && wanted(site));
    let together: HashSet<SiteLabel> = together.map(|site| site.label.clone()).collect();
    let is_part = |site: &JudgedSite| {
        site.leak_share.is_some() && site.parent.as_ref().is_some_and(|parent| together.contains(parent))
    };
    let is_named: Vec<bool> = analysis
        .sites
        .iter()
        .map(|site| wanted(site) || parents.contains(&site.label) || is_part(site))
        .collect();
    let addresses = analysis.sites.iter_mut().zip(&is_named).filter(|(_, named)| **named);
    let addresses = addresses.flat_map(|(site, _)| &mut site.stack);
    let mut addresses: Vec<_> = addresses.filter(|address| !address.is_generated).collect();
    let requests: Vec<Request> = addresses
        .iter()
        .map(|address| Request { address: address.address, module: address.module_id, is_exact: false })
        .collect();
    let resolution = symbolizer.resolve_trace(trace, &requests);
    analysis.summary.unresolved_addresses = resolution.unresolved() as u64;
    analysis.summary.reported_addresses = requests.iter().collect::<HashSet<_>>().len() as u64;
    for (address, resolved) in addresses.iter_mut().zip(resolution.resolved) {
        address.frames = resolved.frames;
    }
    analysis.outcomes = resolution.outcomes;
}

/// Finds the symbols of all sites that do not have symbols yet, for a report in which the user may look at
/// any site. The additional symbols do not change the figures in the summary and in the hints, because these
/// figures count only sites that a report may list.
pub fn name_the_rest(analysis: &mut Analysis, recording: &Input, symbolizer: &Symbolizer) {
    let Input::Trace(trace) = recording else { return };
    let addresses = analysis.sites.iter_mut().flat_map(|site| &mut site.stack);
    let mut addresses: Vec<_> = addresses.filter(|address| address.frames.is_empty()).collect();
    let requests: Vec<Request> = addresses
        .iter()
        .map(|address| Request { address: address.address, module: address.module_id, is_exact: false })
        .collect();
    let resolution = symbolizer.resolve_trace(trace, &requests);
    for (address, resolved) in addresses.iter_mut().zip(resolution.resolved) {
        address.frames = resolved.frames;
    }
}
