//! Tests that names from untrusted sources are shown as text and never run as code.

use super::{Draft, Page};
use crate::draft::{caller, leaking};

#[test]
fn hostile_names_stay_text() {
    let template = format!("std::map<{}>::insert", "std::vector<int, std::allocator<int>>, ".repeat(110));
    assert!(template.len() > 4000);
    let names = [
        "</script><script>document.title='run'</script>",
        "<img src=x onerror=\"document.title='run'\">",
        "\u{202e}gnirts desrever\u{2066}",
        "'\"`&lt;\0\u{1b}[31m\n",
        "]]><!--",
        "שלום_עולם",
        template.as_str(),
    ];
    let mut draft = Draft::with_sites(names.iter().map(|name| caller(name, leaking)).collect());
    draft.command = vec!["</title><script>document.title='run'</script>".into(), "\"><b>".into()];
    let page = Page::of(&draft, &[]);
    let browser = page.open();
    assert_eq!(browser.console(), Vec::<String>::new());
    assert_eq!(browser.text("document.title"), "script> – edleak", "the last part of the path");
    assert_eq!(browser.number("document.querySelectorAll('script').length"), 2.0, "the data and the program");
    assert_eq!(browser.number("document.querySelectorAll('img, b:not(.tip b)').length"), 0.0);
    let shown = browser
        .value("Array.from(document.querySelectorAll('#sites .open'), name => name.textContent).join('|')");
    let shown = shown.as_str().expect("text");
    for part in [
        "</script><script>",
        "<img src=x",
        "⟨U+202E⟩gnirts",
        "⟨U+0000⟩⟨U+001B⟩[31m⟨U+000A⟩",
        "]]><!--",
        "שלום_עולם",
        "std::map<",
    ] {
        assert!(shown.contains(part), "`{part}` in {shown}");
    }
    // A name of 4 kB does not make the page wider.
    assert_eq!(browser.number("document.documentElement.scrollWidth"), 1280.0);
    let html = page.html();
    assert!(!html.contains("<script>document") && !html.contains("<img"), "the static part");
    assert!(!html.contains('\u{202e}'), "the static part shows the mark's number");
}

#[test]
fn an_anonymized_trace_shows_no_arguments() {
    let page = Page::of(&Draft::usual(), &[]);
    assert!(page.html().contains("hunter2"), "the plain page names the arguments");
    let anonymous = page.dir.join("anonymous.edl");
    let anonymize = edleak_tests::run::run(
        std::process::Command::new(&edleak_tests::tools::tools().analyze)
            .args(["anonymize", "--key", "k", "-o"])
            .args([&anonymous, &page.trace]),
    );
    assert_eq!(anonymize.code, 0, "{}", anonymize.stderr);
    let target = page.dir.join("anonymous.html");
    super::write_page(&target, &[], &[&anonymous]);
    let html = std::fs::read_to_string(&target).expect("the page was written");
    assert!(html.contains("the trace is anonymized"), "it says so");
    let browser = edleak_tests::browser::Browser::start(1280, 1000);
    browser.open_page(&target);
    let text = browser.text("document.body.innerText");
    for secret in ["hunter2", "server", "grow_list", "app.c"] {
        assert!(!text.contains(secret), "`{secret}` is shown");
    }
}
