//! Finds which source files of a crate use which other files, and which files use each other in a circle.

use crate::sources::{code_of, rust_files};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The modules that use themselves through other modules.
pub fn files_in_a_circle(uses: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let is_in_a_circle = |start: &&String| {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&String> = uses[*start].iter().collect();
        while let Some(module) = next.pop() {
            if reached.insert(module) {
                next.extend(&uses[module]);
            }
        }
        reached.contains(start)
    };
    uses.keys().filter(is_in_a_circle).cloned().collect()
}

/// For each module of a crate, the modules that its code names. The name of the crate's root module is the
/// empty text.
pub fn uses_of_files(room: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let files: BTreeMap<String, PathBuf> = rust_files()
        .into_iter()
        .filter_map(|path| {
            let module = path.strip_prefix(room).ok()?.with_extension("");
            let mut parts: Vec<String> =
                module.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            parts.pop_if(|last| matches!(last.as_str(), "lib" | "main" | "mod"));
            Some((parts.join("::"), path))
        })
        .collect();
    let uses = |(module, path): (&String, &PathBuf)| {
        let code = code_of(path);
        // A re-export (`pub use`) does not count as a use, because re-exports are the interface of a folder.
        let code: String = code
            .split_inclusive(';')
            .filter(|statement| !statement.trim_start().starts_with("pub"))
            .chain(
                code.split_inclusive(';')
                    .filter(|s| s.trim_start().starts_with("pub") && !s.contains("use ")),
            )
            .collect();
        let parts: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
        let mut named = BTreeSet::new();
        for (at, start) in code.match_indices("crate::") {
            if !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                leaves(&[], &code[at + start.len()..], &mut |path| named.extend(module_of(path, &files)));
            }
        }
        // After `use crate::arch`, the code of the preload library names its files as `arch::detour::free`.
        for (at, _) in code.match_indices("arch::") {
            if !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                leaves(&[], &code[at..], &mut |path| {
                    named.extend(module_of(path, &files).filter(|module| !module.is_empty()));
                });
            }
        }
        for (at, start) in code.match_indices("super::") {
            if code[at + start.len()..].starts_with("super::") {
                continue; // only the last `super` of a path is followed
            }
            let outer = code[..at].matches("super::").count()
                - code[..at].trim_end_matches("super::").matches("super::").count();
            let from = parts.len().saturating_sub(outer + 1);
            leaves(&parts[..from], &code[at + start.len()..], &mut |path| {
                named.extend(module_of(path, &files));
            });
        }
        for child in files.keys().filter(|child| is_child(child, module)) {
            let name = child.rsplit("::").next().unwrap_or(child);
            let inner = format!("{name}::");
            let is_named = code
                .match_indices(&inner)
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'));
            named.extend(is_named.then(|| child.clone()));
        }
        named.remove(module);
        (module.clone(), named)
    };
    files.iter().map(uses).collect()
}

fn is_child(module: &str, of: &str) -> bool {
    match module.rsplit_once("::") {
        Some((parent, _)) => parent == of,
        None => of.is_empty() && !module.is_empty(),
    }
}

/// The module whose file a path names: the longest start of the path that is a module.
fn module_of(path: &[&str], files: &BTreeMap<String, PathBuf>) -> Option<String> {
    // In the collector, `attach::arch` is the folder `attach/x86_64`. In the preload library, `arch::x` is
    // the file `arch/x86_64/x.rs`.
    let replaced = path.iter().map(|part| if *part == "arch" { "x86_64" } else { part }).collect();
    let inserted = path.iter().flat_map(|part| match *part {
        "arch" => &["arch", "x86_64"][..],
        _ => std::slice::from_ref(part),
    });
    let longest = |path: &[&str]| {
        (0..=path.len()).rev().map(|end| path[..end].join("::")).find(|module| files.contains_key(module))
    };
    let paths: [Vec<&str>; 3] = [path.to_vec(), replaced, inserted.copied().collect()];
    paths.iter().filter_map(|path| longest(path)).max_by_key(String::len)
}

/// `text` begins with a path of Rust code. Calls `found` with the path. If the path contains braces, as in
/// `a::{b, c}`, calls `found` once for each path that it means: `a::b` and `a::c`.
fn leaves(base: &[&str], text: &str, found: &mut dyn FnMut(&[&str])) {
    let text = text.trim_start();
    if let Some(inside) = text.strip_prefix('{') {
        let (mut depth, mut start) = (0usize, 0);
        for (at, c) in inside.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    if !inside[start..at].trim().is_empty() {
                        leaves(base, &inside[start..at], found);
                    }
                    start = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
        return;
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    let mut path = base.to_vec();
    if !text[..end].is_empty() && &text[..end] != "self" {
        path.push(&text[..end]);
    }
    match text[end..].strip_prefix("::") {
        Some(rest) => leaves(&path, rest, found),
        None => found(&path),
    }
}
