//! Draws the state on a terminal of at least 40 columns and 10 lines.

use super::once::{figures, heading, line, title};
use super::state::{Page, State};
use crate::args::SortArg;
use crate::snapshot::Row;
use edleak_model::classify::Verdict;
use edleak_report::text::{Style as TextStyle, fill, printable};
use edleak_text::units;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{List, ListItem, ListState, Paragraph};

const KEYS: &str = "Enter stacks  w watch  / filter  s sort  p pause  q leave";
const STACK_KEYS: &str = "w watch  p pause  q back";

/// Draws the whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State) {
    let ink = Ink::of_environment();
    let [title_area, figures_area, status_area, body, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Line::styled(title(&state.snapshot, &state.progress), ink.strong()), title_area);
    frame.render_widget(Line::raw(figures(&state.snapshot)), figures_area);
    frame.render_widget(Line::styled(status(state), ink.warning()), status_area);
    match state.page {
        Page::Sites => sites(frame, state, ink, body),
        Page::Stacks => stacks(frame, state, ink, body),
    }
    let text = if state.page == Page::Sites { KEYS } else { STACK_KEYS };
    frame.render_widget(Line::styled(text, ink.faint()), keys);
}

/// The third line of the screen: the last answer of the collector, or the settings that differ from the
/// defaults.
fn status(state: &State) -> String {
    let mut parts = Vec::new();
    if !state.message.is_empty() {
        return printable(&state.message);
    }
    if state.has_ended {
        parts.push("the recording has ended".to_owned());
    }
    if state.is_paused() {
        parts.push("paused".to_owned());
    }
    if state.is_filtering {
        parts.push(format!("filter: {}_", printable(&state.filter)));
    } else if !state.filter.is_empty() {
        parts.push(format!("filter: {}", printable(&state.filter)));
    }
    let sort = match state.sort {
        SortArg::Growth => None,
        SortArg::Live => Some("sorted by live bytes"),
        SortArg::Allocs => Some("sorted by allocations"),
    };
    parts.extend(sort.map(str::to_owned));
    if state.snapshot.lost_slices > 0 {
        parts.push(units::plural(state.snapshot.lost_slices, "lost slice", "lost slices"));
    }
    parts.join(", ")
}

fn sites(frame: &mut Frame<'_>, state: &State, ink: Ink, area: Rect) {
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(area);
    frame.render_widget(Line::styled(heading(state.sort, usize::from(area.width)), ink.faint()), head);
    let rows = state.rows();
    if rows.is_empty() {
        let text = match state.filter.is_empty() {
            true => "no site has an allocation yet",
            false => "no site matches the filter (Esc in the filter clears it)",
        };
        return frame.render_widget(Line::raw(text), body);
    }
    let item = |row: &&Row| {
        let text = line(TextStyle::of_environment(false), row, state.sort, usize::from(area.width));
        let (word, rest) = text.split_at(8);
        let watched = if state.is_watched(row) { ink.strong() } else { Style::new() };
        ListItem::new(Line::from(vec![
            Span::styled(word.to_owned(), ink.of_verdict(row)),
            Span::styled(rest.to_owned(), watched),
        ]))
    };
    let list =
        List::new(rows.iter().map(item)).highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    // The list scrolls so that the selected row is visible.
    let mut list_state = ListState::default().with_selected(Some(state.selected()));
    frame.render_stateful_widget(list, body, &mut list_state);
}

fn stacks(frame: &mut Frame<'_>, state: &mut State, ink: Ink, area: Rect) {
    let Some(row) = state.row() else { return };
    let width = usize::from(area.width).max(20);
    let mut lines = vec![
        Line::styled(printable(&row.function), ink.strong()),
        Line::raw(printable(&match row.file.is_empty() {
            true => format!("in {}", row.module),
            false => format!("at {}:{}, in {}", row.file, row.line, row.module),
        })),
        Line::styled(
            format!(
                "{} {}: {} live in {}, {}",
                row.word(),
                row.class,
                units::bytes(row.live_bytes as f64),
                units::plural(row.live_count, "allocation", "allocations"),
                units::rate(row.rate_bytes_per_s)
            ),
            ink.of_verdict(row),
        ),
    ];
    let why = printable(&row.why.join("; "));
    lines.extend(fill(&why, "why: ", "     ", width).into_iter().map(Line::raw));
    if row.stacks.is_empty() {
        lines.push(Line::raw(""));
        lines.push(Line::styled("no stacks are recorded here (w watches the site)", ink.faint()));
    }
    for stack in &row.stacks {
        lines.push(Line::raw(""));
        let held = format!(
            "{} in {}",
            units::bytes(stack.live_bytes as f64),
            units::plural(stack.live_count, "live allocation", "live allocations")
        );
        lines.push(Line::styled(held, ink.strong()));
        lines.extend(stack.frames.iter().map(|frame| Line::raw(format!("  {}", printable(frame)))));
    }
    state.scroll = state.scroll.min(lines.len().saturating_sub(usize::from(area.height)));
    let shown = lines.into_iter().skip(state.scroll);
    frame.render_widget(Paragraph::new(shown.collect::<Vec<_>>()), area);
}

/// The colours of the view; no colours if the environment (for example `NO_COLOR`) forbids them.
#[derive(Clone, Copy)]
struct Ink {
    has_colour: bool,
}

impl Ink {
    fn of_environment() -> Self {
        Self { has_colour: TextStyle::of_environment(true).colour }
    }

    fn coloured(self, colour: Color) -> Style {
        if self.has_colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn warning(self) -> Style {
        self.coloured(Color::Yellow)
    }

    fn of_verdict(self, row: &Row) -> Style {
        match (row.verdict, row.is_strict) {
            (Verdict::Leak, true) => self.coloured(Color::Red).add_modifier(Modifier::BOLD),
            (Verdict::Leak, false) => self.coloured(Color::Yellow).add_modifier(Modifier::BOLD),
            _ => Style::new(),
        }
    }
}
