//! The profile as text for a person, in 80 columns: a table of sites, and the stacks as a tree that begins
//! with the outermost frames.

use super::ProfileReport;
use super::tree::Node;
use crate::text::{Style, WIDTH, columns, fill, fitted, printable};
use edleak_analysis::frame::base_name;
use edleak_analysis::profile::{Figures, Order, Span};
use edleak_analysis::site::{JudgedSite, Kind, SiteLabel};
use edleak_text::units;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

/// Number of sites that the table lists if the user does not give another number.
const SITES: usize = 20;
/// The tree shows a frame only if the frame has at least 1 % of the total.
const LEAST_SHARE: f64 = 0.01;
/// Maximum number of lines of the tree.
const MOST_LINES: usize = 60;
/// Maximum indentation of a line in the tree, in columns. Lines of deeper levels of the tree are not indented
/// further.
const DEEPEST_INDENT: usize = 24;

impl ProfileReport<'_> {
    /// Writes the table of sites, and then, if the profile has recorded stacks, the tree of stacks.
    ///
    /// # Errors
    /// `out` cannot be written to.
    pub fn write_text(&self, style: Style, out: &mut dyn Write) -> io::Result<()> {
        let header = &self.analysis.header;
        let command = match header.command.is_empty() {
            true => self.analysis.source.clone(),
            false => header.command.join(" "),
        };
        writeln!(out, "{}", style.clip_end(&format!("edleak: {}", printable(&command)), WIDTH))?;
        for line in fill(&format!("{}: {}", self.when(), self.total()), "", "", WIDTH) {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "({})", self.precision())?;
        writeln!(out)?;
        self.table(style, out)?;
        self.tree(style, out)
    }

    fn total(&self) -> String {
        let total = &self.profile.total;
        let is_range = matches!(self.profile.span, Span::Range { .. });
        match self.profile.order {
            Order::Live | Order::Count => {
                let (bytes, count) = (size(total.live_bytes), number(total.live_count));
                match is_range {
                    true => format!("{bytes} more are live, in {count} more allocations"),
                    false => format!("{bytes} live in {count} allocations"),
                }
            }
            Order::Allocated => format!(
                "{} allocated in {} allocations",
                size(total.allocated_bytes.into()),
                number(total.allocs.into())
            ),
            Order::Churn => format!(
                "at least {} of {} allocations, {} of {}, are freed before the next slice",
                number(total.temporary_allocs.into()),
                number(total.allocs.into()),
                size(total.temporary_bytes.into()),
                size(total.allocated_bytes.into())
            ),
        }
    }

    fn table(&self, style: Style, out: &mut dyn Write) -> io::Result<()> {
        let order = self.profile.order;
        let [first, second] = match order {
            Order::Live => ["live", "allocations"],
            Order::Allocated => ["allocated", "allocations"],
            Order::Count => ["allocations", "live"],
            Order::Churn => ["temporary", "bytes"],
        };
        writeln!(out, "{:>8}  {first:>12}  {second:>12}  site", "share")?;
        let all = self.profile.total.by(order);
        let rows = self.callers();
        let (listed, others) = rows.split_at(self.top.unwrap_or(SITES).min(rows.len()));
        for (site, figures) in listed {
            let cells = cells(figures.by(order), pair(figures, order), order, all);
            writeln!(out, "{cells}  {}", place(style, site, WIDTH - columns(&cells) - 2))?;
        }
        if !others.is_empty() {
            let mut sum = Figures::default();
            others.iter().for_each(|(_, figures)| sum.add(figures));
            let more = units::plural(others.len() as u64, "more site", "more sites");
            writeln!(out, "{}  {more}", cells(sum.by(order), pair(&sum, order), order, all))?;
        }
        Ok(())
    }

    /// The rows of the table of sites. A watched site and its stacks together are one row. The rows are
    /// sorted by the figure that the user chose, highest first; rows in which this figure is 0 are left out.
    fn callers(&self) -> Vec<(&JudgedSite, Figures)> {
        let order = self.profile.order;
        let sites = &self.analysis.sites;
        let index: HashMap<&SiteLabel, usize> = (0..).zip(sites).map(|(i, site)| (&site.label, i)).collect();
        let mut sums: BTreeMap<usize, Figures> = BTreeMap::new();
        for row in &self.profile.rows {
            let parent = sites[row.site].parent.as_ref().and_then(|parent| index.get(parent));
            sums.entry(parent.copied().unwrap_or(row.site)).or_default().add(&row.figures);
        }
        let mut rows: Vec<_> = sums.into_iter().map(|(site, figures)| (&sites[site], figures)).collect();
        rows.retain(|(_, figures)| figures.by(order) != 0);
        // The sort is stable, so rows with equal figures keep the order of the findings.
        rows.sort_by_key(|(_, figures)| std::cmp::Reverse(figures.by(order)));
        rows
    }

    fn tree(&self, style: Style, out: &mut dyn Write) -> io::Result<()> {
        let order = self.profile.order;
        let is_stack = |site: usize| self.analysis.sites[site].kind == Kind::Stack;
        if !self.profile.rows.iter().any(|row| is_stack(row.site)) {
            return Ok(());
        }
        let mut root = Node::default();
        for row in self.profile.rows.iter().filter(|row| row.figures.by(order) > 0) {
            let site = &self.analysis.sites[row.site];
            let mut names: Vec<String> = site.frames().map(|frame| printable(&frame.name())).collect();
            if names.is_empty() {
                names.push(printable(&site.name()));
            }
            root.add(names.into_iter().rev(), row.figures.by(order));
        }
        root.sort();
        if root.weight <= 0 {
            return Ok(());
        }
        writeln!(out)?;
        writeln!(out, "from the outermost frame inward; sites without recorded stacks stand alone:")?;
        let mut lines = Vec::new();
        write_node(style, &root, root.weight, None, &mut lines);
        let more = lines.len().saturating_sub(MOST_LINES);
        lines.iter().take(MOST_LINES).try_for_each(|line| writeln!(out, "{line}"))?;
        if more > 0 {
            writeln!(out, "          {} more frames (--format json has all)", units::count(more as u64))?;
        }
        Ok(())
    }
}

/// Writes the children of a node. `depth` is the depth of the node; `None`: the node is the root, which has
/// no line. If a node has only one child and this child has the full weight of the node, the child gets the
/// same indentation as the node.
fn write_node(style: Style, node: &Node, all: i128, depth: Option<usize>, lines: &mut Vec<String>) {
    let is_shown = |child: &&Node| child.weight as f64 >= LEAST_SHARE * all as f64;
    let shown: Vec<&Node> = node.children.iter().filter(is_shown).collect();
    let branches = shown.len() > 1 || shown.iter().any(|child| child.weight != node.weight);
    let depth = depth.map_or(0, |depth| depth + usize::from(branches));
    for child in shown {
        let indent = (2 * depth).min(DEEPEST_INDENT);
        let share = 100.0 * child.weight as f64 / all as f64;
        let name = fitted(style, &child.name, WIDTH - 10 - indent);
        lines.push(format!("{share:>6.1} %  {:indent$}{name}", ""));
        write_node(style, child, all, Some(depth), lines);
    }
}

fn pair(figures: &Figures, order: Order) -> [i128; 2] {
    match order {
        Order::Live => [figures.live_bytes, figures.live_count],
        Order::Allocated => [figures.allocated_bytes.into(), figures.allocs.into()],
        Order::Count => [figures.live_count, figures.live_bytes],
        Order::Churn => [figures.temporary_allocs.into(), figures.temporary_bytes.into()],
    }
}

/// The three numbers of one row of the table, as text: the share of the total, then bytes and allocations, or
/// allocations and bytes, depending on `order`.
fn cells(value: i128, [first, second]: [i128; 2], order: Order, all: i128) -> String {
    let share = match all > 0 {
        true => format!("{:.1} %", 100.0 * value as f64 / all as f64),
        false => "-".into(),
    };
    let [first, second] = match order {
        Order::Live | Order::Allocated => [size(first), number(second)],
        Order::Count | Order::Churn => [number(first), size(second)],
    };
    format!("{share:>8}  {first:>12}  {second:>12}")
}

/// Function, file and line, in at most `width` columns. If function, file and line do not fit in `width`
/// columns, the function's name is shortened.
fn place(style: Style, site: &JudgedSite, width: usize) -> String {
    let Some(frame) = site.headline() else { return style.clip_end(&printable(&site.name()), width) };
    let line = frame.place().map(|(file, line)| format!(" {}:{line}", printable(base_name(file))));
    let line = line.filter(|line| columns(line) < width / 2).unwrap_or_default();
    fitted(style, &printable(&frame.name()), width - columns(&line)) + &line
}

fn size(bytes: i128) -> String {
    units::bytes(bytes as f64)
}

fn number(count: i128) -> String {
    let sign = if count < 0 { "-" } else { "" };
    format!("{sign}{}", units::count(u64::try_from(count.unsigned_abs()).unwrap_or(u64::MAX)))
}
