//! The tables of names and frames in the page's data. Each name of a function, file or module is stored only
//! once, and each frame refers to its names by number.

use super::payload::Payload;
use edleak_analysis::frame::SiteFrame;
use edleak_analysis::site::JudgedSite;
use std::collections::HashMap;

/// Maximum length of a name in bytes. The end of a longer name is cut off, so that the page stays small.
const MAX_NAME_BYTES: usize = 16 << 10;
/// Limit for the size of all names together, in bytes. If all names together have more than 24 MiB, each
/// further name is cut to [`SHORT_NAME_BYTES`].
const MAX_ALL_BYTES: usize = 24 << 20;
const SHORT_NAME_BYTES: usize = 120;
const INLINED: u64 = 1;
const RUNTIME: u64 = 2;

/// All names. Each name has a number from 1 on; the number 0 stands for "no name".
#[derive(Default)]
pub(super) struct Names {
    numbers: HashMap<String, u64>,
    texts: Vec<String>,
    bytes: usize,
    frames: HashMap<FrameKey, u64>,
    table: Vec<FrameKey>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct FrameKey {
    name: u64,
    file: u64,
    line: u64,
    module: u64,
    offset: u64,
    flags: u64,
}

/// Shortens a name to at most `most` bytes, by removing its end.
fn cut(name: &str, most: usize) -> String {
    if name.len() <= most {
        return name.to_owned();
    }
    let mut end = most;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &name[..end])
}

impl Names {
    /// Returns the number that stands for `name` in the table of names. If the table does not have the name,
    /// the function adds the name.
    pub(super) fn number(&mut self, name: &str) -> u64 {
        if name.is_empty() {
            return 0;
        }
        let most = if self.bytes > MAX_ALL_BYTES { SHORT_NAME_BYTES } else { MAX_NAME_BYTES };
        let name = cut(name, most);
        if let Some(&number) = self.numbers.get(&name) {
            return number;
        }
        self.bytes += name.len();
        self.texts.push(name.clone());
        let number = self.texts.len() as u64;
        self.numbers.insert(name, number);
        number
    }

    /// The frames of a site, innermost first. The result has, for each frame, its number in the table of
    /// frames.
    pub(super) fn stack_of(&mut self, site: &JudgedSite) -> Vec<u64> {
        site.frames().map(|frame| self.frame(frame)).collect()
    }

    fn frame(&mut self, frame: SiteFrame<'_>) -> u64 {
        let (file, line) = frame.place().unwrap_or(("", 0));
        let is_inlined = frame.frame.is_some_and(|frame| frame.is_inlined);
        let key = FrameKey {
            name: self.number(&frame.name()),
            file: self.number(file),
            line: line.into(),
            module: self.number(frame.address.module.as_deref().unwrap_or_default()),
            offset: frame.address.offset.map_or(0, |offset| offset.saturating_add(1)),
            flags: u64::from(is_inlined) * INLINED + u64::from(frame.is_runtime()) * RUNTIME,
        };
        *self.frames.entry(key).or_insert_with(|| {
            self.table.push(key);
            self.table.len() as u64 - 1
        })
    }

    /// Writes the table of frames into the page's data. The table has one column for each property of a
    /// frame.
    pub(super) fn write(&self, payload: &mut Payload) {
        let mut column = |name: &str, value: fn(&FrameKey) -> u64| {
            payload.numbers(format!("frame.{name}"), self.table.iter().map(value));
        };
        column("name", |key| key.name);
        column("file", |key| key.file);
        column("line", |key| key.line);
        column("module", |key| key.module);
        column("offset", |key| key.offset);
        column("flags", |key| key.flags);
    }

    /// The names, sorted by their numbers; the first name has number 1.
    pub(super) fn into_texts(self) -> Vec<String> {
        self.texts
    }
}
