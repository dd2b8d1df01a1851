//! The list of leaks as static HTML, for browsers that run no script. Each leak has one row with its figures,
//! reasons and stacks.

use super::chart::sparkline;
use super::escape::text;
use crate::{CURVE_COLUMNS, in_step, pace};
use edleak_analysis::finding::Finding;
use edleak_analysis::frame::SiteFrame;
use edleak_analysis::group::{Group, Share};
use edleak_analysis::site::{Domain, JudgedSite};
use edleak_model::classify::Confidence;
use edleak_text::units;

/// Maximum number of leaks in the list. A list of more than 40 leaks would need sorting and filtering, which
/// only the script offers.
const MAX_LEAKS: usize = 40;
/// Number of leaks that the list shows before the user opens the rest of the list with a click.
const FIRST_LEAKS: usize = 8;
const MAX_STACKS: usize = 8;
const MAX_PARTS: usize = 64;
const MAX_FRAMES: usize = 64;

/// Writes the table. The leak with the highest rate is in the first row.
pub(super) fn table(leaks: &[Finding<'_>]) -> String {
    if leaks.is_empty() {
        return "<p class=\"empty\">No site is reported as a leak.</p>".into();
    }
    let (first, folded) = leaks[..leaks.len().min(MAX_LEAKS)].split_at(leaks.len().min(FIRST_LEAKS));
    let folded = match folded {
        [] => String::new(),
        folded => format!(
            "<details><summary>{} more leaks</summary>{}</details>",
            units::count(folded.len() as u64),
            rows(folded)
        ),
    };
    let more = leaks.len().saturating_sub(MAX_LEAKS);
    let more = match more {
        0 => String::new(),
        more => {
            format!("<p class=\"note\">{} more leaks are among the sites.</p>", units::count(more as u64))
        }
    };
    format!("{}{folded}{more}", rows(first))
}

fn rows(leaks: &[Finding<'_>]) -> String {
    let rows: String = leaks.iter().map(row).collect();
    format!(
        "<table><thead><tr><th scope=\"col\">Verdict</th><th scope=\"col\">Site</th>\
         <th scope=\"col\" class=\"figure\">Rate</th><th scope=\"col\" class=\"figure\">Leaked</th>\
         <th scope=\"col\" class=\"figure\">Live at the end</th><th scope=\"col\">Curve</th></tr></thead>\
         <tbody>{rows}</tbody></table>"
    )
}

fn row(leak: &Finding<'_>) -> String {
    let judgement = &leak.lead().judgement;
    let word = if judgement.confidence == Some(Confidence::Suspect) { "suspect" } else { "leak" };
    let together = in_step(leak).map_or_else(String::new, |together| format!("<li>{}</li>", text(&together)));
    let reasons: String = judgement.why.iter().map(|why| format!("<li>{}</li>", text(why))).collect();
    let (from, to) = (leak.levels.first(), leak.levels.last());
    let label = format!("live bytes from {} to {}", units::bytes(from), units::bytes(to));
    format!(
        "<tr data-leak=\"{id}\"><td><span class=\"verdict leak\">{word}</span> {class}</td>\
         <td><bdi class=\"name\">{name}</bdi>{domain}{place}{freed}\
         <details><summary>{summary}</summary><ul>{together}{reasons}</ul>{parts}</details></td>\
         <td class=\"figure\" data-title=\"Rate\">{rate}</td>\
         <td class=\"figure\" data-title=\"Leaked\">{leaked}</td>\
         <td class=\"figure\" data-title=\"Live at the end\">{live}</td>\
         <td>{curve}</td></tr>",
        id = text(&leak.largest().site.label.to_string()),
        class = if leak.lead().per_mark.is_some() { "" } else { judgement.class.name() },
        name = text(&leak.name()),
        place = place(leak.headline()) + &of_pool(leak.lead()),
        domain = match leak.lead().domain() {
            Domain::Heap => "",
            Domain::Mapping => "<span class=\"tag\">mapped</span>",
            Domain::Pool => "<span class=\"tag\">pool</span>",
        },
        freed = match leak.is_freed_at_end() {
            true => "<div class=\"note\">most of it was freed when the program ended</div>",
            false => "",
        },
        summary = match leak.parts.len() {
            1 => "Why, and the stacks".to_owned(),
            parts => format!("{parts} places that leak in step: why, and the stacks"),
        },
        parts = parts(leak),
        rate = text(&pace(leak)),
        leaked = text(&units::bytes(leak.leak_bytes())),
        live = text(&units::bytes(to)),
        curve = sparkline(&leak.levels.at(CURVE_COLUMNS), &label),
    )
}

/// The name of the pool from which the site got its objects. The result is empty if the site does not call a
/// pool.
fn of_pool(site: &JudgedSite) -> String {
    match site.pool.as_deref() {
        None => String::new(),
        Some("") => "<div>from a pool without a name</div>".into(),
        Some(pool) => format!("<div>from pool <bdi class=\"name\">{}</bdi></div>", text(pool)),
    }
}

fn place(frame: Option<SiteFrame<'_>>) -> String {
    frame.and_then(SiteFrame::place).map_or_else(String::new, |(file, line)| {
        format!("<div class=\"place\"><bdi>{}:{line}</bdi></div>", text(file))
    })
}

/// If a leak has one place in the code: its stacks. If a leak has several places: for each place, its share
/// of the leaked bytes and its stacks.
fn parts(leak: &Finding<'_>) -> String {
    if leak.together.is_none() {
        return stacks(leak.largest());
    }
    let part = |part: &Group<'_>| {
        let share = 100.0 * part.leak_bytes / leak.leak_bytes().max(1.0);
        let count = part.leak_count.map_or_else(String::new, |count| {
            format!(" in {}", units::plural(count, "allocation", "allocations"))
        });
        format!(
            "<div>{share:.0} %: {}{count} by <bdi class=\"name\">{}</bdi>{}</div>{}",
            text(&units::bytes(part.leak_bytes)),
            text(&part.name()),
            place(part.headline()),
            stacks(part)
        )
    };
    leak.parts.iter().take(MAX_PARTS).map(part).collect()
}

fn stacks(leak: &Group<'_>) -> String {
    if leak.shares.is_empty() {
        return stack(leak.site);
    }
    let of_share = |share: &Share<'_>| match share.site {
        Some(site) => format!("<p>{:.0} % of the leaked bytes:</p>{}", 100.0 * share.of_leaked, stack(site)),
        None => format!("<p>{:.0} %: allocated while the site was not watched</p>", 100.0 * share.of_leaked),
    };
    leak.shares.iter().take(MAX_STACKS).map(of_share).collect()
}

fn stack(site: &JudgedSite) -> String {
    let line = |frame: SiteFrame<'_>| {
        let place = frame.place().map_or_else(String::new, |(file, line)| {
            format!(" <span class=\"place\">{}:{line}</span>", text(file))
        });
        let inlined =
            if frame.frame.is_some_and(|frame| frame.is_inlined) { " <em>inlined</em>" } else { "" };
        format!("<li><bdi>{}</bdi>{place}{inlined}</li>", text(&frame.name()))
    };
    let frames: String = site.frames().take(MAX_FRAMES).map(line).collect();
    format!("<ol class=\"stack\">{frames}</ol>")
}
