//! Tests that the page shows the numbers of the JSON report, sends no requests, and writes nothing to the
//! console.

use super::{Draft, Page, cell, listed, write_page};
use crate::draft::{caller, churning, constant, counters, leaking, leaking_fast};
use edleak_tests::browser::Browser;
use edleak_tests::temp::TempDir;
use serde_json::Value;

#[test]
fn page_opens_without_errors_and_without_any_request() {
    let page = Page::of(&Draft::usual(), &[]);
    let browser = page.open();
    let own = format!("\"file://{}\"", page.page.display());
    let foreign: Vec<String> =
        browser.requests().into_iter().filter(|url| *url != own && !url.starts_with("\"data:")).collect();
    assert_eq!(foreign, Vec::<String>::new());
    assert_eq!(browser.console(), Vec::<String>::new());
    let policy = browser.text("document.querySelector('meta[http-equiv]').content");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for id in ["headline", "timeline", "range", "sites", "filter", "scatter", "flame", "missed"] {
        assert_eq!(browser.number(&format!("document.querySelectorAll('#{id}').length")), 1.0, "#{id}");
    }
}

#[test]
fn table_tells_the_numbers_of_the_json_report() {
    let page = Page::of(&Draft::usual(), &[]);
    let (browser, json) = (page.open(), page.json());
    let sites = json["sites"].as_array().expect("a list");
    let mut ids: Vec<String> = sites.iter().map(|site| site["id"].to_string()).collect();
    let mut shown = listed(&browser);
    assert_eq!(shown[..2], ids[..2], "the leaks come in the order of the report");
    shown.sort();
    ids.sort();
    assert_eq!(shown, ids);
    for site in sites {
        let id = site["id"].to_string();
        let number = |field: &str| site[field].as_f64().expect("a number");
        assert_eq!(cell(&browser, &id, "leaked"), number("leak_bytes"), "site {id}");
        // The list of leaks joins several sites into one entry. For a leaking site, the table shows the
        // growth rate of the site's entry.
        let has_site = |part: &Value| {
            part["site"] == site["id"]
                || part["stacks"].as_array().is_some_and(|stacks| stacks.contains(&site["id"]))
        };
        let finding = json["findings"].as_array().expect("a list").iter().find(|finding| {
            site["verdict"] == "leak" && finding["parts"].as_array().expect("a list").iter().any(has_site)
        });
        let rate = finding.map_or(number("rate_bytes_per_s"), |finding| {
            finding["rate_bytes_per_s"].as_f64().expect("a number")
        });
        assert_eq!(cell(&browser, &id, "rate"), rate, "site {id}");
        assert_eq!(cell(&browser, &id, "live"), number("live_bytes"), "site {id}");
        assert_eq!(cell(&browser, &id, "churn"), number("freed_bytes"), "site {id}");
        let verdict =
            browser.text(&format!("document.querySelector('tr[data-site=\"{id}\"] .verdict').className"));
        assert_eq!(verdict, format!("verdict {}", site["verdict"].as_str().expect("text")), "site {id}");
    }
    let leaks = json["summary"]["leaks"].as_u64().expect("a number");
    let headline = browser.text("document.querySelector('#headline h2').textContent");
    assert!(headline.starts_with(&format!("{leaks} leak")), "{headline}, and {leaks} by JSON");
    let live = browser.text("document.querySelector('#range [data-live]').dataset.live");
    assert_eq!(live, json["summary"]["live_bytes"].to_string());
    ids.dedup();
    assert_eq!(ids.len(), 6);
}

#[test]
fn headline_and_leaks_are_there_without_scripts() {
    let page = Page::of(&Draft::usual(), &[]);
    let browser = Browser::start(1280, 1000);
    browser.disable_scripts();
    browser.open(&page.page);
    let document = browser.document();
    assert!(!document.contains("data-ready"), "no script has run");
    for part in [
        "2 leaks: ",
        "Is it the heap?",
        "leaks most",
        "grow_list",
        "handle_request",
        "<svg class=\"plain\"",
        "data-leak=\"0\"",
    ] {
        assert!(document.contains(part), "`{part}` is missing");
    }
}

#[test]
fn two_traces_are_a_comparison() {
    let dir = TempDir::new("html-compare");
    let before = Draft::with_sites(vec![
        caller("stays", leaking),
        caller("grows", leaking),
        caller("gone", leaking),
        caller("new", constant),
    ]);
    let after = Draft::with_sites(vec![
        caller("stays", leaking),
        caller("grows", leaking_fast),
        caller("gone", churning),
        caller("new", leaking),
    ]);
    let (before, after) = (before.write(&dir.join("before.edl")), after.write(&dir.join("after.edl")));
    let page = dir.join("report.html");
    let outcome = write_page(&page, &["--title", "Before & <after>"], &[&before, &after]);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    let browser = Browser::start(1280, 1000);
    browser.open_page(&page);
    assert_eq!(browser.text("document.querySelector('h1').textContent"), "Before & <after>");
    let changed = browser.text("document.querySelector('#headline').textContent");
    assert!(changed.contains("Leaks: 1 new, 1 faster, 1 the same, 1 gone."), "{changed}");
    let change = |site: &str| {
        browser.text(&format!(
            "document.querySelector('tr[data-site=\"{site}\"] td[data-key=\"change\"]').textContent"
        ))
    };
    assert!(change("0").starts_with("same, was"), "{}", change("0"));
    assert!(change("1").starts_with("faster, was"), "{}", change("1"));
    assert_eq!(change("3"), "new");
    assert!(browser.text("document.querySelector('#sites').textContent").contains("gone, was"));
    assert_eq!(browser.number("document.querySelectorAll('#timeline path.before').length"), 1.0);
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn a_peak_between_two_instants_is_not_lost() {
    // The test's only allocation lives for one of 1200 slices, and the page keeps the values at no more than
    // 500 instants. The page must still show the peak that the allocation causes.
    fn burst(slice: u64) -> edleak_format::Counters {
        counters(
            1_000_000 * u64::from(slice >= 601),
            u64::from(slice >= 601),
            1_000_000 * u64::from(slice > 601),
            u64::from(slice > 601),
        )
    }
    let draft =
        Draft { slices: 1200, ..Draft::with_sites(vec![caller("burst", burst), caller("grow", leaking)]) };
    let browser = Page::of(&draft, &[]).open();
    assert_eq!(cell(&browser, "0", "peak"), 1_000_000.0);
    assert_eq!(cell(&browser, "1", "peak"), 120_000.0);
    browser.click("#flame button[data-value='peak']");
    let total = browser.number("Number(document.querySelector('#flame g.frame').dataset.total)");
    assert_eq!(total, 1_000_000.0 + 60_200.0, "what both held at slice 601");
    let label = browser.text("document.querySelector('#timeline svg').getAttribute('aria-label')");
    assert!(label.contains("1.0 MiB at the peak after 1 min"), "{label}");
}
