//! The state of the view: the rows that it shows, their order, and the actions of the keys. The code in this
//! file does not need a terminal.

use crate::args::SortArg;
use crate::snapshot::{Row, Snapshot};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use edleak_analysis::site::SiteLabel;
use edleak_collector::control::progress::Progress;

/// The action that the main loop must do after a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Action {
    None,
    Leave,
    /// The main loop must read the trace again at once.
    Refresh,
    /// The main loop must ask the collector to watch or unwatch a site.
    Watch {
        spec: String,
        is_for: bool,
    },
}

/// The page on the screen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Page {
    Sites,
    /// The stacks of the selected site.
    Stacks,
}

/// The state of the view, and its data.
pub(super) struct State {
    pub(super) snapshot: Snapshot,
    pub(super) progress: Progress,
    pub(super) sort: SortArg,
    pub(super) page: Page,
    pub(super) filter: String,
    pub(super) is_filtering: bool,
    /// Number of lines of the page of stacks that are scrolled out of view at the top.
    pub(super) scroll: usize,
    /// The text on the line for messages: the last answer of the collector, or the last error.
    pub(super) message: String,
    pub(super) has_ended: bool,
    is_paused: bool,
    /// The label of the selected row. The view stores the label and not the index, so that the same site
    /// stays selected when the order changes.
    selected: Option<SiteLabel>,
}

impl State {
    pub(super) fn new(sort: SortArg, progress: Progress) -> Self {
        Self {
            snapshot: Snapshot::default(),
            progress,
            sort,
            page: Page::Sites,
            filter: String::new(),
            is_filtering: false,
            scroll: 0,
            message: String::new(),
            has_ended: false,
            is_paused: false,
            selected: None,
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Takes a new snapshot. `None` for the progress means that the recording has ended; the last snapshot
    /// then stays on the screen.
    pub(super) fn refresh(&mut self, mut snapshot: Snapshot, progress: Option<Progress>) {
        snapshot.sort(self.sort);
        self.snapshot = snapshot;
        self.has_ended = progress.is_none();
        if let Some(progress) = progress {
            self.progress = progress;
        }
    }

    pub(super) fn tell(&mut self, message: String) {
        self.message = message;
    }

    /// The rows that pass the filter, in the order of the view.
    pub(super) fn rows(&self) -> Vec<&Row> {
        self.snapshot.rows.iter().filter(|row| row.matches(&self.filter)).collect()
    }

    /// The index of the selected row in [`rows`](Self::rows).
    pub(super) fn selected(&self) -> usize {
        let rows = self.rows();
        rows.iter().position(|row| Some(&row.label) == self.selected.as_ref()).unwrap_or(0)
    }

    /// The selected row.
    pub(super) fn row(&self) -> Option<&Row> {
        self.rows().get(self.selected()).copied()
    }

    /// Whether the collector watches the site because a user requested the watch of exactly this site.
    pub(super) fn is_watched(&self, row: &Row) -> bool {
        !row.spec.is_empty() && self.progress.watched.split(", ").any(|watched| watched == row.spec)
    }

    fn select(&mut self, place: usize) {
        let rows = self.rows();
        let label = rows.get(place.min(rows.len().saturating_sub(1))).map(|row| row.label.clone());
        self.selected = label;
    }

    /// Performs the action of a key.
    pub(super) fn on_key(&mut self, key: KeyEvent) -> Action {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Action::Leave;
        }
        if self.is_filtering {
            self.on_filter_key(key.code);
            return Action::None;
        }
        self.message.clear();
        let place = self.selected();
        match (self.page, key.code) {
            (Page::Sites, KeyCode::Char('q') | KeyCode::Esc) => return Action::Leave,
            (Page::Stacks, KeyCode::Char('q') | KeyCode::Esc | KeyCode::Enter | KeyCode::Left) => {
                self.page = Page::Sites;
            }
            (Page::Sites, KeyCode::Enter | KeyCode::Right) if self.row().is_some() => {
                (self.page, self.scroll) = (Page::Stacks, 0);
                self.select(place);
            }
            (Page::Sites, KeyCode::Down | KeyCode::Char('j')) => self.select(place + 1),
            (Page::Sites, KeyCode::Up | KeyCode::Char('k')) => self.select(place.saturating_sub(1)),
            (Page::Sites, KeyCode::PageDown) => self.select(place + 10),
            (Page::Sites, KeyCode::PageUp) => self.select(place.saturating_sub(10)),
            (Page::Sites, KeyCode::Home) => self.select(0),
            (Page::Sites, KeyCode::End) => self.select(usize::MAX),
            (Page::Stacks, KeyCode::Down | KeyCode::Char('j')) => self.scroll += 1,
            (Page::Stacks, KeyCode::Up | KeyCode::Char('k')) => self.scroll = self.scroll.saturating_sub(1),
            (Page::Stacks, KeyCode::PageDown) => self.scroll += 10,
            (Page::Stacks, KeyCode::PageUp) => self.scroll = self.scroll.saturating_sub(10),
            (Page::Sites, KeyCode::Char('/')) => self.is_filtering = true,
            (_, KeyCode::Char('p')) => {
                self.is_paused = !self.is_paused;
                return if self.is_paused { Action::None } else { Action::Refresh };
            }
            (Page::Sites, KeyCode::Char('s')) => {
                self.sort = match self.sort {
                    SortArg::Growth => SortArg::Live,
                    SortArg::Live => SortArg::Allocs,
                    SortArg::Allocs => SortArg::Growth,
                };
                self.snapshot.sort(self.sort);
                self.select(0);
            }
            (_, KeyCode::Char('w')) => return self.toggle_watch(),
            _ => {}
        }
        Action::None
    }

    fn on_filter_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_filtering = false,
            KeyCode::Esc => {
                self.is_filtering = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) => self.filter.push(c),
            _ => {}
        }
    }

    fn toggle_watch(&mut self) -> Action {
        let Some(row) = self.row() else { return Action::None };
        if row.spec.is_empty() {
            self.message = "this site has no address to watch".into();
            return Action::None;
        }
        Action::Watch { spec: row.spec.clone(), is_for: !self.is_watched(row) }
    }
}
