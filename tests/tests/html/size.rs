//! Tests the size of a page without data, and of a page with very many sites.

use super::{Draft, write_page};
use crate::draft::{caller, leaking};
use edleak_format::{
    Counters, Module, ModuleId, Record, Site, SiteId, SiteKind, SliceHeader, Start, TraceWriter,
};
use edleak_tests::browser::Browser;
use edleak_tests::temp::TempDir;
use std::path::Path;

const SITES: usize = 100_000;
const SLICES: u64 = 500;

#[test]
fn page_and_script_are_small() {
    let page = super::Page::of(&Draft::with_sites(vec![caller("grow", leaking)]), &[]);
    let html = page.html();
    let data = html.find("id=\"data\">").expect("the page holds data");
    let data = html[data..].find("</script>").expect("the data ends");
    assert!(html.len() - data < 150_000, "{} bytes without the data", html.len() - data);
}

/// Writes a large trace. The counters of half of the sites change in every slice, by amounts that do not
/// compress.
fn write_large(path: &Path) {
    let mut writer = TraceWriter::create(path, 512 << 20).expect("a trace of 512 MiB fits");
    let start =
        Start { command: vec!["large".into()], tick_ns: 1_000_000_000, period_ticks: 1, ..Start::default() };
    writer.record(&Record::Start(start)).expect("the record is sound");
    let module = Module {
        id: ModuleId(0),
        path: "/opt/large".into(),
        build_id: vec![1],
        load_bias: 0x5500_0000_0000,
        start: 0x5500_0000_0000,
        end: 0x5600_0000_0000,
        loaded_ns: 0,
        unloaded_ns: 0,
    };
    writer.record(&Record::Module(module.clone())).expect("the record is sound");
    for id in 0..SITES as u32 {
        let address = 0x5500_0000_0000 + 16 * u64::from(id);
        let site = Site {
            id: SiteId(id),
            kind: SiteKind::Caller,
            parent: None,
            address,
            module: Some(module.id),
            stack: None,
        };
        writer.record(&Record::Site(site)).expect("the record is sound");
    }
    let mut counters = vec![Counters::ZERO; SITES];
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    for tick in 1..=SLICES {
        for (i, site) in counters.iter_mut().enumerate() {
            if (i as u64 + tick).is_multiple_of(2) && tick > 1 {
                continue;
            }
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            site.allocs += 1 + random % 50;
            site.allocated_bytes += 16 + random % 5000;
            if i % 100 != 0 {
                site.frees = site.frees.max(site.allocs - random % 2);
                site.freed_bytes = site.freed_bytes.max(site.allocated_bytes.saturating_sub(random % 300));
            }
        }
        let header =
            SliceHeader { tick, time_ns: tick * 1_000_000_000, rss_anon_bytes: 1 << 30, swap_bytes: 0 };
        writer.slice(&header, &counters).expect("the slice is sound");
    }
    writer.finish().expect("the trace fits");
}

#[test]
fn a_hundred_thousand_sites_stay_under_20_mb_and_say_what_is_summed_up() {
    let dir = TempDir::new("html-large");
    let (trace, page) = (dir.join("large.edl"), dir.join("large.html"));
    write_large(&trace);
    write_page(&page, &[], &[&trace]);
    let bytes = std::fs::metadata(&page).expect("the page was written").len();
    assert!(bytes < 20_000_000, "{bytes} bytes");
    let browser = Browser::start(1280, 1000);
    browser.open_page(&page);
    // The page should be usable within two seconds. The test only prints the measured time, because a busy
    // machine needs longer than two seconds.
    eprintln!("{bytes} bytes, usable after {} ms", browser.text("document.documentElement.dataset.usable"));
    let status = browser.text("document.querySelector('#sites [role=status]').textContent");
    assert!(
        status.contains("100,000 sites of 100,000") && status.contains("has no room for the counters of"),
        "{status}"
    );
    // The totals include the sites whose counters are not in the page. So the growth of all rows of the table
    // together must equal the growth of the process.
    browser.value("performance.mark('range')");
    browser.value(
        "(([from, to]) => { from.value = '100'; to.value = '400'; to.dispatchEvent(new Event('change')); })\
         (document.querySelectorAll('#range input'))",
    );
    eprintln!(
        "a range after {} ms",
        browser.number("performance.now() - performance.getEntriesByName('range')[0].startTime")
    );
    let status = browser.text("document.querySelector('#sites [role=status]').textContent");
    assert!(status.contains("Together they grew by"), "{status}");
    browser.click("#flame button[data-value='grew']");
    let said = browser.text("document.querySelector('#flame').textContent");
    assert!(said.contains("Left out: ") && said.contains("whose counters are not in the page"), "{said}");
    assert_eq!(browser.console(), Vec::<String>::new());
}
