//! Finds the place of a site in the code: its addresses, modules and offsets, from the catalog of the trace.

use crate::frame::Address;
use crate::replay::Merged;
use crate::site::{JudgedSite, Kind, SiteLabel};
use edleak_format::{Site, SiteKind, StackFrame, Trace};

/// Sets the fields of the site that say where it is in the code: its addresses, their modules and offsets.
pub(super) fn locate(site: &mut JudgedSite, known: &Site, trace: &Trace, merged: &Merged) {
    site.parent = known.parent.map(|parent| SiteLabel::Number(u64::from(merged.root(parent).0)));
    site.addresses = merged.members(known.id).map_or(1, |members| members.len() as u64);
    site.kind = Kind::of(known.kind);
    if let SiteKind::Pool(id) = known.kind {
        site.pool = Some(trace.pool(id).map_or_else(String::new, |pool| pool.name.clone()));
    }
    let address_of = |frame: &StackFrame| {
        let module = frame.module.and_then(|id| trace.module(id));
        Address {
            address: frame.address,
            module_id: frame.module.filter(|_| module.is_some()),
            module: module.map(|module| module.path.clone()),
            build_id: module.map_or_else(String::new, |module| hex(&module.build_id)),
            offset: module.map(|module| frame.address.wrapping_sub(module.load_bias)),
            is_generated: module.is_none(),
            frames: [].into(),
        }
    };
    let stack = known.stack.and_then(|id| trace.stack(id));
    if let Some(stack) = stack {
        site.stack = stack.frames.iter().map(address_of).collect();
        site.is_stack_cut = stack.is_cut;
    } else if known.address != 0 {
        site.stack = vec![address_of(&StackFrame { address: known.address, module: known.module })];
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    // This function converts a build ID for every frame of every stack, so it must be fast. When this
    // function called `format!` for each byte, it took a third of the time of an analysis of a trace with
    // 27,000 stacks.
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.extend([digit(byte >> 4), digit(byte & 15)]);
    }
    text
}
