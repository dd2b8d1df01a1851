//! Tests that damaged or wrong input gives a page with an error message, and never an empty chart.

use super::{Draft, Page, write_page};
use edleak_tests::browser::Browser;
use edleak_tests::run::run;
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::process::Command;

#[test]
fn a_trace_that_cannot_be_read_gives_a_page_that_says_why() {
    let dir = TempDir::new("html-bad");
    let (empty, page) = (dir.join("empty.edl"), dir.join("report.html"));
    std::fs::write(&empty, b"").expect("the directory is writable");
    let outcome = write_page(&page, &[], &[&empty]);
    assert_eq!(outcome.code, 3);
    let browser = Browser::start(1280, 1000);
    browser.open(&page);
    let text = browser.text("document.body.innerText");
    assert!(text.contains("No recording could be read") && text.contains("empty.edl"), "{text}");
    assert_eq!(browser.number("document.querySelectorAll('svg, canvas, table').length"), 0.0);
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn a_trace_that_can_be_read_is_shown_beside_the_one_that_cannot() {
    let page = Page::of(&Draft::usual(), &[]);
    let (empty, target) = (page.dir.join("empty.edl"), page.dir.join("both.html"));
    std::fs::write(&empty, b"").expect("the directory is writable");
    assert_eq!(write_page(&target, &[], &[&empty, &page.trace]).code, 3);
    let html = std::fs::read_to_string(&target).expect("the page was written");
    assert!(html.contains("empty.edl") && html.contains("2 leaks: "));
}

#[test]
fn a_damaged_or_short_trace_gives_a_page_that_says_so() {
    let page = Page::of(&Draft { slices: 1, ..Draft::usual() }, &[]);
    let browser = page.open();
    let text = browser.text("document.body.innerText");
    assert!(text.contains("Undecided") && text.contains("too few slices for a curve"), "{text}");
    assert_eq!(browser.number("document.querySelectorAll('#timeline svg, #scatter canvas').length"), 0.0);
    assert_eq!(browser.console(), Vec::<String>::new());

    let page = Page::of(&Draft::usual(), &[]);
    let mut bytes = std::fs::read(&page.trace).expect("the trace was written");
    // The first page of the trace file has 4096 bytes. Damage the first block, which begins after the first
    // page.
    bytes[4200..4216].fill(0x5a);
    std::fs::write(&page.trace, bytes).expect("the directory is writable");
    let target = page.dir.join("damaged.html");
    write_page(&target, &[], &[&page.trace]);
    browser.open(&target);
    let missed = browser.text("document.querySelector('#missed').textContent");
    assert!(missed.contains("damaged"), "{missed}");
}

#[test]
fn series_lines_make_a_page_too() {
    let page = Page::of(&Draft::usual(), &[]);
    let lines = run(Command::new(&tools().analyze).args(["--format", "series", "--all"]).arg(&page.trace));
    let (series, target) = (page.dir.join("series.jsonl"), page.dir.join("series.html"));
    std::fs::write(&series, lines.stdout).expect("the directory is writable");
    assert_eq!(write_page(&target, &[], &[&series]).code, 1);
    let browser = Browser::start(1280, 1000);
    browser.open_page(&target);
    assert_eq!(super::listed(&browser).len(), 6);
    assert_eq!(super::cell(&browser, "0", "live"), 20_000.0);
    assert!(browser.text("document.querySelector('#range').textContent").contains("only what was live"));
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn a_title_belongs_to_a_page() {
    let page = Page::of(&Draft::usual(), &["--title", "Nightly"]);
    assert!(page.html().contains("<title>Nightly – edleak</title>"));
    let outcome = run(Command::new(&tools().analyze).args(["--title", "Nightly"]).arg(&page.trace));
    assert_eq!(outcome.code, 3);
    assert!(outcome.stderr.contains("add `--format html`"), "{}", outcome.stderr);
}
