//! Writes a copy of a trace, with symbols added or with all names replaced. The copy has the same slices as
//! the trace.

use crate::error::{Error, ErrorKind, Result};
use crate::replacement::Replacement;
use edleak_binary::embed::build_trace;
use edleak_binary::{Resolution, Symbolizer};
use edleak_format::{AreaKind, DEFAULT_CAPACITY_BYTES, MemoryArea, Record, SymbolFrame, Trace, rewrite};
use edleak_text::reason::reason;
use siphasher::sip128::SipHasher24;
use std::path::Path;

/// Writes `from` to `to` and adds the frames of every address in the trace. `to` may be the file from which
/// `from` was read.
///
/// # Errors
/// The new trace cannot be written.
pub fn embed(from: &Trace, to: &Path, symbolizer: &Symbolizer) -> Result<Resolution> {
    let (symbols, resolution) = build_trace(symbolizer, from);
    let keep = |record| (!matches!(record, Record::Symbols(_))).then_some(record);
    replace(from, to, keep, symbols.into_iter().map(Record::Symbols))?;
    Ok(resolution)
}

/// Writes `from` to `to` and replaces every name and path by a stable hash of the name and of `key`.
///
/// A name has the same hash in every trace that was anonymized with the same key, so these traces can still
/// be compared. The copy has the same line numbers, offsets, times and counters as `from`. If `key` is empty,
/// a person who guesses a name can compute its hash, and finds the hash in the trace if the guess is right.
///
/// # Errors
/// The new trace cannot be written.
pub fn anonymize(from: &Trace, to: &Path, key: &str) -> Result<()> {
    let hash = |text: &str| pseudonym(key, text.as_bytes());
    let path = |text: &str| format!("/{}", hash(text));
    let frame = |frame: SymbolFrame| SymbolFrame {
        function: frame.function.map(|name| format!("f_{}", hash(&name))),
        file: frame.file.map(|name| path(&name)),
        ..frame
    };
    let map = |record| {
        Some(match record {
            Record::Earlier(mut earlier) => {
                earlier.traces = earlier.traces.iter().map(|name| hash(name)).collect();
                Record::Earlier(earlier)
            }
            Record::Start(mut start) => {
                start.command = start.command.iter().map(|word| hash(word)).collect();
                Record::Start(start)
            }
            Record::Module(mut module) => {
                module.path = path(&module.path);
                if !module.build_id.is_empty() {
                    let name: String = module.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
                    module.build_id = pseudonym(key, name.as_bytes()).into_bytes();
                }
                Record::Module(module)
            }
            Record::Symbols(mut symbols) => {
                for address in &mut symbols.addresses {
                    address.frames = std::mem::take(&mut address.frames).into_iter().map(frame).collect();
                }
                Record::Symbols(symbols)
            }
            Record::Mark(mut mark) => {
                mark.name = format!("mark_{}", hash(&mark.name));
                Record::Mark(mark)
            }
            Record::Pool(mut pool) if !pool.name.is_empty() => {
                pool.name = format!("pool_{}", hash(&pool.name));
                Record::Pool(pool)
            }
            Record::MemoryArea(mut area) if is_named_by_the_program(&area) => {
                area.name = format!("anon_{}", hash(&area.name));
                Record::MemoryArea(area)
            }
            Record::Allocator(mut allocator) => {
                allocator.symbol = format!("f_{}", hash(&allocator.symbol));
                Record::Allocator(allocator)
            }
            Record::UncountedFunctions(mut functions) => {
                functions.symbols =
                    functions.symbols.iter().map(|name| format!("f_{}", hash(name))).collect();
                Record::UncountedFunctions(functions)
            }
            other => other,
        })
    };
    replace(from, to, map, std::iter::empty())
}

/// Whether the program chose the name of an area (`[anon:NAME]`), so that the name must be replaced. The
/// names of areas that the program did not choose are addresses and ids, which need not be replaced.
fn is_named_by_the_program(area: &MemoryArea) -> bool {
    matches!(area.kind, AreaKind::Named | AreaKind::Unseen) && !area.name.is_empty()
}

/// The hash that replaces a name: sixteen hexadecimal digits.
///
/// Names like `main` are in every trace, so anyone can tell which hash belongs to `main`. The known hash of
/// `main` must not help anyone to compute the hashes of other names. So the function uses the keyed hash
/// SipHash-2-4, and not a simple hash of the key followed by the name.
fn pseudonym(key: &str, name: &[u8]) -> String {
    let key = SipHasher24::new().hash(key.as_bytes());
    format!("{:016x}", SipHasher24::new_with_key(&key.as_bytes()).hash(name).as_u64().0)
}

/// Writes the new trace to a file beside `to`, and renames this file to `to` when it is complete.
fn replace(
    from: &Trace,
    to: &Path,
    map: impl FnMut(Record) -> Option<Record>,
    extra: impl Iterator<Item = Record>,
) -> Result<()> {
    let failed = |reason: &str| {
        let message = format!("cannot write `{}`: {reason}", to.display());
        Error::new(ErrorKind::Output, message).with_remedy("give another file with `-o`")
    };
    let replacement = Replacement::of(to, 0o600).map_err(|error| failed(&reason(&error)))?;
    rewrite(from, replacement.path(), DEFAULT_CAPACITY_BYTES.saturating_mul(16), map, extra).map_err(
        // The messages of the writer name the temporary file, and an option of edleak-record.
        |error| match error.raw_os_error() {
            Some(libc::EFBIG) => {
                failed("it would be larger than the limit of the file size").with_remedy("raise `ulimit -f`")
            }
            Some(libc::ENOSPC | libc::EDQUOT) => failed("the disk or the quota is full")
                .with_remedy("free some space, or give another file with `-o`"),
            _ => failed(error.message()),
        },
    )?;
    replacement.put_in_place().map_err(|error| failed(&reason(&error)))
}

#[cfg(test)]
mod tests {
    use super::pseudonym;

    #[test]
    fn pseudonyms_are_stable_and_depend_on_the_key() {
        assert_eq!(pseudonym("k", b"main"), pseudonym("k", b"main"));
        assert_ne!(pseudonym("k", b"main"), pseudonym("l", b"main"));
        assert_ne!(pseudonym("k", b"main"), pseudonym("k", b"mair"));
        assert_eq!(pseudonym("", b"").len(), 16);
        // The hash of a name must be the same in all versions of edleak, because users compare traces that
        // different versions anonymized.
        assert_eq!(pseudonym("key", b"main"), "70e767086352f127");
    }
}
