//! Tests the page of `--format html` in a headless Chromium. The content of the page must equal the trace and
//! the JSON report of this trace.

mod draft;
mod faults;
mod input;
mod interaction;
mod names;
mod numbers;
mod script;
mod size;

use draft::Draft;
use edleak_tests::browser::Browser;
use edleak_tests::run::{Outcome, run};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A trace that a test wrote, its HTML page, and the directory of both files.
struct Page {
    dir: TempDir,
    trace: PathBuf,
    page: PathBuf,
}

impl Page {
    fn of(draft: &Draft, options: &[&str]) -> Page {
        let dir = TempDir::new("html");
        let trace = draft.write(&dir.join("trace.edl"));
        let page = dir.join("report.html");
        let outcome = write_page(&page, options, &[&trace]);
        assert!(outcome.code < 3, "exit code {}: {}", outcome.code, outcome.stderr);
        Page { dir, trace, page }
    }

    /// Opens the page in a browser whose window is 1280 pixels wide.
    fn open(&self) -> Browser {
        let browser = Browser::start(1280, 1000);
        browser.open_page(&self.page);
        browser
    }

    /// The HTML file as edleak-analyze wrote it, before a script runs.
    fn html(&self) -> String {
        std::fs::read_to_string(&self.page).expect("the page was written in UTF-8")
    }

    /// The JSON report of the trace, with every site.
    fn json(&self) -> Value {
        let options = ["--format", "json", "--all", "--min-class", "constant"];
        let outcome = run(Command::new(&tools().analyze).args(options).arg(&self.trace));
        serde_json::from_str(&outcome.stdout).expect("the report is JSON")
    }
}

fn write_page(page: &Path, options: &[&str], traces: &[&Path]) -> Outcome {
    run(Command::new(&tools().analyze).args(["--format", "html", "-o"]).arg(page).args(options).args(traces))
}

/// The exact number behind a cell of the table, not the rounded text of the cell.
fn cell(browser: &Browser, site: &str, column: &str) -> f64 {
    let cell =
        format!("document.querySelector('tr[data-site=\"{site}\"] td[data-key=\"{column}\"]').dataset.value");
    browser.text(&cell).parse().expect("a cell holds a number")
}

/// The ids of the sites in the table, in the order of the rows.
fn listed(browser: &Browser) -> Vec<String> {
    let sites = browser
        .value("Array.from(document.querySelectorAll('#sites tr[data-site]'), row => row.dataset.site)");
    let sites = sites.as_array().expect("a list").iter();
    sites.map(|site| site.as_str().expect("a site is text").to_owned()).collect()
}
