//! Tests sorting, filtering, time ranges, the details of a site, the scatter plot and the flame graph, by
//! mouse and by keys.

use super::{Draft, Page, cell, listed};
use crate::draft::{DraftSite, counters, stack};
use edleak_format::Epoch;
use edleak_tests::browser::Browser;

const ENTER: &str = "\u{e007}";
const RIGHT: &str = "\u{e014}";
const ESCAPE: &str = "\u{e00c}";

#[test]
fn a_click_on_a_heading_sorts_and_another_one_turns_the_order() {
    let browser = Page::of(&Draft::usual(), &[]).open();
    browser.click("#sites th[data-key='churn'] button");
    assert_eq!(listed(&browser)[0], "1", "the site that churns");
    assert_eq!(
        browser.text("document.querySelector('th[data-key=churn]').getAttribute('aria-sort')"),
        "descending"
    );
    browser.click("#sites th[data-key='churn'] button");
    assert_eq!(listed(&browser).last().map(String::as_str), Some("1"));
    browser.click("#sites th[data-key='name'] button");
    let names = browser.value(
        "Array.from(document.querySelectorAll('#sites tr[data-site] .name'), name => name.textContent)",
    );
    let names: Vec<&str> =
        names.as_array().expect("a list").iter().map(|name| name.as_str().expect("text")).collect();
    assert!(names.is_sorted(), "{names:?}");
}

#[test]
fn the_filter_takes_the_patterns_of_suppressions() {
    let browser = Page::of(&Draft::usual(), &[]).open();
    let sites_of = |pattern: &str| {
        browser.value("(document.querySelector('#filter').value = '', 0)");
        browser.type_into("#filter", pattern);
        browser.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))");
        let mut sites = listed(&browser);
        sites.sort();
        sites.join(" ")
    };
    // A filter matches the function, inner frames, the file and the module. A filter may match any part of a
    // name, use anchors, or use `*`.
    assert_eq!(sites_of("grow"), "0");
    assert_eq!(sites_of("^parse*json$"), "4");
    assert_eq!(sites_of("leak:warm_up"), "5");
    assert_eq!(sites_of("^main$"), "4 5");
    assert_eq!(sites_of("server$"), "0 1 2 3 4 5");
    assert_eq!(sites_of("^list"), "");
    assert_eq!(sites_of("leak"), "0 4");
    browser.value("(document.querySelector('#filter').value = '', 0)");
    browser.type_into("#filter", "x\u{e003}");
    browser.wait_for("document.querySelectorAll('#sites tr[data-site]').length === 6");
}

#[test]
fn everything_answers_for_the_range_that_is_dragged() {
    let browser = Page::of(&Draft::usual(), &[]).open();
    browser.drag_along("#timeline .plot", 0.25, 0.75);
    browser.wait_for("Number(document.querySelector('#range').dataset.from) > 0");
    let second = |edge: &str| {
        browser
            .text(&format!("document.querySelector('#range').dataset.{edge}"))
            .parse::<f64>()
            .expect("seconds")
    };
    let (from, to) = (second("from"), second("to"));
    assert!((from - 5.0).abs() < 0.3 && (to - 15.0).abs() < 0.3, "{from} to {to} of 20 s");
    // Slice i was taken (i + 1) / 10 s after the start of the recording (see `draft.rs`).
    let slices = (10.0 * (to - from)).round();
    assert_eq!(cell(&browser, "0", "grew"), 100.0 * slices);
    assert_eq!(cell(&browser, "0", "kept"), 100.0 * slices, "nothing was freed, so all of it is alive");
    assert_eq!(cell(&browser, "0", "live"), 100.0 * (10.0 * to).round());
    assert_eq!(cell(&browser, "4", "grew"), 300.0 * slices);
    assert_eq!((cell(&browser, "1", "grew"), cell(&browser, "1", "churn")), (0.0, 1000.0 * slices));
    let tile = |name: &str| {
        browser.number(&format!(
            "Number(document.querySelector('#range [data-{name}]').getAttribute('data-{name}'))"
        ))
    };
    assert_eq!(tile("allocated"), 1400.0 * slices);
    assert_eq!(tile("freed"), 1000.0 * slices);
    // The counters do not say whether bytes that were freed in the time range were also allocated in it. Up
    // to 1000 of the freed bytes may have been allocated before the time range. So the page shows a lower and
    // an upper limit for the bytes that were allocated in the time range and are still live.
    assert_eq!((tile("kept-low"), tile("kept-high")), (400.0 * slices, 400.0 * slices + 1000.0));
    // The flame graph must use the same time range as the table.
    browser.click("#flame button[data-value='grew']");
    assert_eq!(
        browser.number("Number(document.querySelector('#flame g.frame').dataset.total)"),
        400.0 * slices
    );
    browser.click("#range button");
    browser.wait_for("document.querySelector('#range').dataset.from === '0'");
    assert_eq!(cell(&browser, "0", "live"), 20_000.0);
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn birth_epochs_narrow_what_is_alive_of_a_range() {
    // In each slice, the site allocates 100 bytes, of which 50 bytes are never freed. The trace shows which
    // bytes are never freed: for each epoch (span of time), it contains how many bytes allocated in the epoch
    // are still live.
    fn half(slice: u64) -> edleak_format::Counters {
        counters(100 * (slice + 1), 2 * (slice + 1), 50 * (slice + 1), slice + 1)
    }
    let epochs = (0..20).map(|i| Epoch {
        from_ns: i * 1_000_000_000,
        to_ns: (i + 1) * 1_000_000_000,
        live_bytes: 500,
        live_count: 10,
        allocs: 20,
    });
    let watched = DraftSite { epochs: epochs.collect(), ..stack(0, &["keep", "main"], half) };
    let nothing = |_| counters(0, 0, 0, 0);
    let draft = Draft::with_sites(vec![super::draft::caller("keep", nothing), watched]);
    let browser = Page::of(&draft, &[]).open();
    set_range(&browser, "10", "20");
    browser.wait_for("Number(document.querySelector('#range').dataset.from) === 10");
    // The counters alone show only that between 5000 and 10 000 of the bytes that were allocated in the time
    // range are still live. The epochs show the exact number: each of the ten epochs in the time range has
    // 500 live bytes.
    assert_eq!(
        browser.text("document.querySelector('tr[data-site=\"1\"] td[data-key=kept]').textContent"),
        "4.9 KiB"
    );
}

#[test]
fn a_range_outside_the_record_is_an_error_with_its_bounds() {
    let browser = Page::of(&Draft::usual(), &[]).open();
    for (from, to) in [("5", "99"), ("-1", "4"), ("9", "3"), ("", "3")] {
        set_range(&browser, from, to);
        let error = browser.text("document.querySelector('#range .error').textContent");
        assert!(error.contains("from 0 to 20.0"), "{from} to {to}: `{error}`");
        assert_eq!(browser.text("document.querySelector('#range').dataset.to"), "20", "{from} to {to}");
    }
}

fn set_range(browser: &Browser, from: &str, to: &str) {
    browser.value(&format!(
        "(([from, to]) => {{ from.value = '{from}'; to.value = '{to}'; \
         to.dispatchEvent(new Event('change')); }})(document.querySelectorAll('#range input'))"
    ));
}

#[test]
fn the_ends_of_the_range_move_by_keys() {
    let browser = Page::of(&Draft::usual(), &[]).open();
    browser.value("document.querySelector('#timeline .handle').focus()");
    browser.type_into("#timeline .handle", &RIGHT.repeat(3));
    browser.wait_for("Number(document.querySelector('#range').dataset.from) > 0.25");
    assert_eq!(
        browser.text("document.querySelector('#timeline .handle').getAttribute('aria-valuetext')"),
        "300 ms"
    );
}

#[test]
fn a_row_opens_to_reasons_and_stack() {
    let browser = Page::of(&Draft::usual(), &[]).open();
    browser.click("tr[data-site='4'] .open");
    let details = browser.text("document.querySelector('tr.opened').textContent");
    for part in ["Why", "parse_json", "handle_request", "59 KiB", "in the range"] {
        assert_eq!(details.contains(part), part != "in the range", "`{part}` in {details}");
    }
    assert_eq!(
        browser.text("document.querySelector('tr[data-site=\"4\"] .open').getAttribute('aria-expanded')"),
        "true"
    );
    browser.type_into("tr[data-site='4'] .open", ENTER);
    browser.wait_for("document.querySelector('tr.opened') === null");
}

#[test]
fn a_frame_of_the_flame_graph_zooms_and_is_found() {
    let browser = Page::of(&Draft::usual(), &[]).open();
    browser.click("#flame button[data-value='live']");
    let total = |selector: &str| {
        browser.number(&format!("Number(document.querySelector('{selector}').dataset.total)"))
    };
    let width = |name: &str| {
        browser.number(&format!(
            "Number(document.querySelector('#flame g[data-name=\"{name}\"] rect').getAttribute('width'))"
        ))
    };
    let all = 20_000.0 + 1000.0 + 4096.0 + 60_000.0 + 4096.0;
    assert_eq!(total("#flame g.frame"), all);
    assert_eq!(total("#flame g[data-name=\"handle_request\"]"), 60_000.0);
    let before = width("handle_request");
    browser.click("#flame g[data-name='handle_request']");
    browser.wait_for("document.querySelector('#flame g.frame').dataset.name === 'handle_request'");
    assert!(width("handle_request") > 1.2 * before, "{before} to {}", width("handle_request"));
    assert!(browser.text("document.querySelector('#flame .crumbs').textContent").contains("main"));
    browser.type_into("#flame g.frame", ESCAPE);
    browser.wait_for("document.querySelector('#flame g.frame').dataset.name === 'main'");
    browser.click("#flame button[data-value='allocation']");
    assert_eq!(total("#flame g[data-depth=\"1\"][data-name=\"make_node\"]"), 64_096.0);
    browser.type_into("#flame input", "^warm_");
    browser.wait_for("document.querySelectorAll('#flame g.hit').length === 1");
    assert_eq!(browser.text("document.querySelector('#flame g.hit').dataset.name"), "warm_up");
}

#[test]
fn the_scatter_is_gone_through_by_keys() {
    let browser = Page::of(&Draft::usual(), &[]).open();
    // The scatter plot orders the sites by growth, the largest growth first. In this trace, the stack with
    // the number 4 grows most.
    browser.type_into("#scatter canvas", &format!("{RIGHT}{ENTER}"));
    browser.wait_for("document.querySelector('tr.selected') !== null");
    assert_eq!(browser.text("document.querySelector('tr.selected').dataset.site"), "4");
}

#[test]
fn missing_slices_are_gaps() {
    let draft = Draft { missing: 60..90, ..Draft::usual() };
    let browser = Page::of(&draft, &[]).open();
    assert_eq!(browser.number("document.querySelectorAll('#timeline rect.gap').length"), 1.0);
    let pieces = browser
        .text("document.querySelector('#timeline path.line.live').getAttribute('d')")
        .matches('M')
        .count();
    assert_eq!(pieces, 2, "the curve is broken once");
    assert!(browser.text("document.querySelector('#missed').textContent").contains("15 % of the record"));
}

#[test]
fn an_accepted_leak_says_why_it_fails_nothing() {
    let page = Page::of(&Draft::usual(), &[]);
    let (rules, target) = (page.dir.join("rules.txt"), page.dir.join("accepted.html"));
    std::fs::write(&rules, "leak:^grow_list$\n").expect("the directory is writable");
    let rules = format!("--suppressions={}", rules.display());
    super::write_page(&target, &[&rules], &[&page.trace]);
    let browser = Browser::start(1280, 1000);
    browser.open_page(&target);
    assert_eq!(
        browser.text("document.querySelector('tr[data-site=\"0\"] .class').textContent"),
        "linear, suppressed"
    );
    assert!(browser.text("document.querySelector('#headline').textContent").contains("1 leak suppressed"));
    browser.type_into("#filter", "suppressed");
    browser.wait_for("document.querySelectorAll('#sites tr[data-site]').length === 1");
}

#[test]
fn an_end_of_a_range_is_dragged_and_the_other_one_stays() {
    let browser = Page::of(&Draft::usual(), &[]).open();
    browser.drag_along("#timeline .plot", 0.25, 0.75);
    browser.wait_for("Number(document.querySelector('#range').dataset.from) > 0");
    let to = browser.text("document.querySelector('#range').dataset.to");
    browser.drag_along("#timeline .plot", 0.25, 0.5);
    browser.wait_for("Number(document.querySelector('#range').dataset.from) > 9");
    assert_eq!(browser.text("document.querySelector('#range').dataset.to"), to);
}
