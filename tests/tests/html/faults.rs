//! Tests situations in which a page of an earlier version contradicted itself: several recordings, touch, the
//! ends of a range, memory freed at the end, gaps, empty recordings, long names, filters.

use super::{Draft, Page, listed, write_page};
use crate::draft::{caller, churning, constant, counters, leaking, leaking_fast};
use edleak_format::EndReason;
use edleak_tests::browser::Browser;
use edleak_tests::temp::TempDir;
use serde_json::json;

const RANGE_FROM: &str = "Number(document.querySelector('#range').dataset.from)";
const RANGE_TO: &str = "Number(document.querySelector('#range').dataset.to)";

#[test]
fn each_recording_shows_its_own_leaks() {
    let dir = TempDir::new("html-recordings");
    let one = Draft::with_sites(vec![caller("leak_of_one", leaking)]).write(&dir.join("one.edl"));
    let two = Draft::with_sites(vec![caller("leak_of_two", leaking_fast)]).write(&dir.join("two.edl"));
    let page = dir.join("report.html");
    write_page(&page, &[], &[&one, &two]);
    let browser = Browser::start(1280, 1000);
    browser.open_page(&page);
    let leaks = |browser: &Browser| browser.text("document.querySelector('#leaks').innerText");
    assert!(leaks(&browser).contains("leak_of_two") && !leaks(&browser).contains("leak_of_one"));
    browser.click("#recordings button[data-value='1']");
    browser.wait_for("document.querySelector('#headline').textContent.includes('leak_of_one')");
    browser.wait_for("document.documentElement.dataset.ready === 'true'");
    assert!(leaks(&browser).contains("leak_of_one"), "{}", leaks(&browser));
    assert!(!leaks(&browser).contains("leak_of_two"), "{}", leaks(&browser));
}

#[test]
fn a_finger_drags_a_range() {
    let browser = Page::of(&Draft::usual(), &[]).open();
    browser.devtools("Emulation.setTouchEmulationEnabled", json!({ "enabled": true }));
    browser.value("document.querySelector('#timeline .plot').scrollIntoView({ block: 'center' })");
    let of_plot = |expression: &str| {
        browser.number(&format!(
            "(box => {expression})(document.querySelector('#timeline .plot').getBoundingClientRect())"
        ))
    };
    let y = of_plot("box.top + box.height / 2");
    let touch = |kind: &str, share: Option<f64>| {
        let point = share
            .map(|share| json!({ "x": of_plot(&format!("box.left + box.width * {share}")).round(), "y": y }));
        let points: Vec<_> = point.into_iter().collect();
        browser.devtools("Input.dispatchTouchEvent", json!({ "type": kind, "touchPoints": points }));
    };
    touch("touchStart", Some(0.25));
    (6..=15).for_each(|twentieth| touch("touchMove", Some(f64::from(twentieth) / 20.0)));
    touch("touchEnd", None);
    browser.wait_for(&format!("{RANGE_FROM} > 4 && {RANGE_TO} < 16"));
}

#[test]
fn the_right_end_of_the_whole_record_is_dragged_to_the_left() {
    let browser = Page::of(&Draft::usual(), &[]).open();
    browser.drag_along("#timeline .plot", 1.0, 0.5);
    browser.wait_for(&format!("{RANGE_TO} < 11"));
    assert_eq!(browser.number(RANGE_FROM), 0.0);
}

#[test]
fn a_range_ends_before_the_program_frees_everything() {
    /// The site of this trace leaks for 19 s. After 19.8 s the program frees all its allocations and ends.
    fn freed(slice: u64) -> edleak_format::Counters {
        let (bytes, count) = (10_000 * slice.min(190), slice.min(190));
        let is_over = u64::from(slice >= 197);
        counters(bytes, count, bytes * is_over, count * is_over)
    }
    let draft = Draft { end: EndReason::Exited(0), ..Draft::with_sites(vec![caller("grow", freed)]) };
    let page = Page::of(&draft, &[]);
    let browser = page.open();
    let to = browser.number(RANGE_TO);
    assert!((18.0..19.8).contains(&to), "{to}");
    let live = super::cell(&browser, "0", "live");
    assert!(live > 1_700_000.0, "{live} bytes are live when the program begins to free");
    assert!(
        browser.text("document.querySelector('#range').textContent").contains("freed its memory and ended")
    );
    assert!(
        browser.text("document.querySelector('#leaks').textContent").contains("freed when the program ended")
    );
    browser.click("tr[data-site='0'] .open");
    assert!(
        browser
            .text("document.querySelector('tr.opened').textContent")
            .contains("freed when the program ended")
    );
}

#[test]
fn sites_without_a_leak_come_by_falling_size() {
    fn large(_slice: u64) -> edleak_format::Counters {
        counters(1_000_000, 1, 0, 0)
    }
    let sites = vec![caller("small", constant), caller("large", large), caller("middle", churning)];
    let browser = Page::of(&Draft::with_sites(sites), &[]).open();
    assert_eq!(listed(&browser), ["1", "0", "2"]);
}

#[test]
fn suppressed_leaks_are_no_plain_all_clear() {
    let page = Page::of(&Draft::usual(), &[]);
    let (rules, target) = (page.dir.join("rules.txt"), page.dir.join("accepted.html"));
    std::fs::write(&rules, "leak:*\n").expect("the directory is writable");
    write_page(&target, &[&format!("--suppressions={}", rules.display())], &[&page.trace]);
    let browser = Browser::start(1280, 1000);
    browser.open_page(&target);
    let verdict = browser.text("document.querySelector('#headline h2').textContent");
    assert_eq!(verdict, "No leak fails the gate: 2 leaks suppressed");
    assert_eq!(browser.text("document.querySelector('#headline').className"), "passed");
}

#[test]
fn slices_missing_at_the_start_are_a_gap() {
    let browser = Page::of(&Draft { missing: 0..60, ..Draft::usual() }, &[]).open();
    assert_eq!(browser.number("document.querySelectorAll('#timeline rect.gap').length"), 1.0);
    assert!(browser.text("document.querySelector('#timeline .legend').textContent").contains("no slices"));
}

#[test]
fn a_recording_without_allocations_has_no_charts() {
    let browser = Page::of(&Draft::with_sites(Vec::new()), &[]).open();
    let text = browser.text("document.body.innerText");
    assert!(text.contains("The recording holds no allocation"), "{text}");
    for part in ["Size against growth", "Flame graph", "Range", "Memory over time"] {
        assert!(!text.contains(part), "`{part}` in {text}");
    }
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn a_long_name_keeps_its_end() {
    let inner = "std::pair<const long, std::vector<std::string>>, ".repeat(4);
    let name = format!("std::_Rb_tree<{inner}>::_M_insert_unique");
    let browser = Page::of(&Draft::with_sites(vec![caller(&name, leaking)]), &[]).open();
    assert_eq!(
        browser.text("document.querySelector('#sites .open .name').textContent"),
        "std::_Rb_tree<>::_M_insert_unique"
    );
}

#[test]
fn a_filter_hides_an_open_row_that_it_does_not_match() {
    let browser = Page::of(&Draft::usual(), &[]).open();
    browser.click("tr[data-site='4'] .open");
    browser.type_into("#filter", "grow_list");
    browser.wait_for("document.querySelectorAll('#sites tr[data-site]').length === 1");
    assert_eq!(listed(&browser), ["0"]);
}

#[test]
fn an_empty_title_is_no_title() {
    let page = Page::of(&Draft::usual(), &["--title", ""]);
    assert!(page.html().contains("<h1><bdi>server</bdi></h1>"));
}

#[test]
fn paper_shows_the_reasons_of_a_leak_once() {
    let browser = Page::of(&Draft::usual(), &[]).open();
    browser.value("dispatchEvent(new Event('beforeprint'))");
    assert_eq!(browser.number("document.querySelectorAll('tr.opened').length"), 0.0);
    assert_eq!(browser.number("document.querySelectorAll('#sites td.curve:empty').length"), 0.0);
}
