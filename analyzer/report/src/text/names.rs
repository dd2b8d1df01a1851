//! Shortens function names that are wider than the space for them. Parameters and template arguments are
//! removed first. The last component of a name, which is the function itself, is kept as long as possible.

use super::style::{Style, columns};
use edleak_binary::names::short;

/// Operators whose characters look like brackets but are not brackets. If an operator is the beginning of a
/// longer operator, the longer operator comes first in the list.
const OPERATORS: [&str; 12] = ["<=>", "<<=", ">>=", "->*", "<<", ">>", "<=", ">=", "->", "()", "<", ">"];

/// Shortens a name to at most `width` columns. The function first replaces the parameters by an ellipsis, and
/// then the template arguments, innermost first. If the name is still too long, the function removes the
/// middle of the name.
pub(crate) fn fitted(style: Style, name: &str, width: usize) -> String {
    let mut name: Vec<char> = short(name).chars().collect();
    let ellipsis: Vec<char> = style.ellipsis().chars().collect();
    let is_parameters = |group: &Group| group.depth == 0 && group.opens_with == '(';
    for pick in [true, false] {
        while name.len() > width {
            let groups: Vec<Group> = groups(&name)
                .into_iter()
                .filter(|group| group.len() > ellipsis.len() && !group.is_anonymous(&name))
                .filter(|group| if pick { is_parameters(group) } else { group.opens_with == '<' })
                .collect();
            let Some(deepest) = groups.iter().map(|group| group.depth).max() else { break };
            // Replace the last pair of brackets in the name first. A replacement changes only the positions
            // of later characters, so the positions of all earlier pairs stay valid.
            for group in groups.iter().rev().filter(|group| group.depth == deepest) {
                name.splice(group.open + 1..group.close, ellipsis.iter().copied());
            }
        }
    }
    let parameters: Vec<char> = format!("({})", style.ellipsis()).chars().collect();
    if name.len() > width && name.ends_with(&parameters) {
        name.truncate(name.len() - parameters.len());
    }
    if name.len() <= width {
        return name.into_iter().collect();
    }
    let kept = width.saturating_sub(columns(style.ellipsis()));
    let tail = &name[name.len() - (kept - kept / 3)..];
    // The kept end of the name may begin with the rest of shortened template arguments, such as `…>`. Remove
    // this rest, because it does not help the reader.
    let rest = tail.iter().position(|c| !"<.…>".contains(*c)).unwrap_or(0);
    name[..kept / 3].iter().chain(&ellipsis).chain(&tail[rest..]).collect()
}

/// The part of a name between two brackets.
struct Group {
    opens_with: char,
    open: usize,
    close: usize,
    depth: usize,
}

impl Group {
    fn len(&self) -> usize {
        self.close - self.open - 1
    }

    fn is_anonymous(&self, name: &[char]) -> bool {
        name[self.open + 1..self.close].iter().copied().eq("anonymous namespace".chars())
    }
}

/// All pairs of brackets in the name, in the order in which they open. If the brackets in the name do not
/// match, the function returns no pair.
fn groups(name: &[char]) -> Vec<Group> {
    let starts =
        |at: usize, word: &str| name[at..].iter().copied().take(word.chars().count()).eq(word.chars());
    let (mut open, mut groups) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < name.len() {
        if starts(at, "operator") {
            at += "operator".len();
            at += OPERATORS.iter().find(|operator| starts(at, operator)).map_or(0, |operator| operator.len());
            continue;
        }
        match name[at] {
            '<' | '(' => open.push(at),
            '>' if at > 0 && matches!(name[at - 1], '-' | '=') => {}
            close @ ('>' | ')') => {
                let Some(start) = open.pop().filter(|&start| (name[start] == '<') == (close == '>')) else {
                    return Vec::new();
                };
                groups.push(Group { opens_with: name[start], open: start, close: at, depth: open.len() });
            }
            _ => {}
        }
        at += 1;
    }
    groups.sort_by_key(|group| group.open);
    if open.is_empty() { groups } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNICODE: Style = Style { colour: false, unicode: true };

    #[test]
    fn the_last_component_stays() {
        let name = "app::Registry<std::pair<int, std::vector<long>>, short>::\
                    add_item(std::vector<long> const&, int)";
        let fit = |width| fitted(UNICODE, name, width);
        assert_eq!(fit(200), name);
        assert_eq!(fit(80), "app::Registry<std::pair<int, std::vector<long>>, short>::add_item(…)");
        assert_eq!(fit(65), "app::Registry<std::pair<int, std::vector<…>>, short>::add_item(…)");
        assert_eq!(fit(50), "app::Registry<std::pair<…>, short>::add_item(…)");
        assert_eq!(fit(30), "app::Registry<…>::add_item(…)");
        assert_eq!(fit(20), "app::R…::add_item");
        let rust = "<alloc::vec::Vec<u8> as core::iter::FromIterator<u8>>::from_iter";
        assert_eq!(fitted(UNICODE, rust, 20), "<…>::from_iter");
    }

    #[test]
    fn brackets_in_operators_and_strange_names_are_not_brackets() {
        let of = |name: &str, width| fitted(UNICODE, name, width);
        assert_eq!(of("ns::operator<<(std::ostream&, ns::Value const&)", 30), "ns::operator<<(…)");
        assert_eq!(of("(anonymous namespace)::f<Something>(int)", 35), "(anonymous namespace)::f<…>(…)");
        assert_eq!(of("f<f<f<f<f<f<f<end_of_it", 12), "f<f…nd_of_it");
        for width in 0..60 {
            for name in [
                "a<b(c>d)e",
                "operator",
                ">",
                "Über<größe>::f(ß)",
                "f(int)::{lambda(int)#1}::operator()(int) const",
            ] {
                assert!(columns(&of(name, width)) <= width.max(1), "{name} {width}");
            }
        }
    }
}
