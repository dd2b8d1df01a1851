//! Writes a copy of a trace, with symbols added or with all names replaced. The copy has the same slices as
//! the trace.

use crate::error::reason;
use crate::error::{Error, ErrorKind, Result};
use edleak_binary::embed::build_trace;
use edleak_binary::{Resolution, Symbolizer};
use edleak_format::{
    AreaKind, DEFAULT_CAPACITY_BYTES, MemoryArea, Record, SymbolFrame, Trace, place, rewrite,
};
use siphasher::sip128::SipHasher24;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use tempfile::NamedTempFile;

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

/// Writes the new trace to a file in the folder of `to`, and renames this file to `to` when it is complete.
/// So if edleak is interrupted before the rename, the old file stays unchanged. The new file gets the owner
/// and the mode of the old file. If `to` is a symbolic link, the function replaces the file to which the link
/// points.
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
    let place = place::followed(to).map_err(|error| failed(&reason(&error)))?;
    // The function holds the lock until the new file has replaced the old file, so that no recording can
    // begin to write to the old file in the meantime.
    let held = match std::fs::symlink_metadata(&place) {
        Ok(there) if !there.is_file() => return Err(failed("it is not a file")),
        Ok(_) => Some(place::open(&place).map_err(|error| failed(&reason(&error)))?),
        Err(_) => None,
    };
    if held.as_ref().is_some_and(|file| !place::lock(file)) {
        return Err(failed("it is still being recorded, and the rest would be lost"));
    }
    let (made, beside) = new_beside(&place).map_err(|error| failed(&reason(&error)))?.into_parts();
    rewrite(from, &beside, DEFAULT_CAPACITY_BYTES.saturating_mul(16), map, extra)
        .map_err(|error| failed(&error.to_string()))?;
    if let Some(old) = held.as_ref().and_then(|file| file.metadata().ok()) {
        // If the user may not change the owner of a file, the new file belongs to this user. The function
        // ignores a failed change of the owner, because the new trace is complete.
        let _ = std::os::unix::fs::fchown(&made, Some(old.uid()), Some(old.gid()));
        let _ = made.set_permissions(old.permissions());
    }
    let put = put_in_place(&beside, &place, held.as_ref());
    if put.is_err() && !place::is_at(&made, &beside) {
        // Another program has put its own file at the path `beside`. Without the call of `keep`, the drop of
        // `beside` would remove the file of the other program.
        let _ = beside.keep();
    }
    put.map_err(|error| failed(&reason(&error)))
}

/// Renames the file `beside` to `place`. The rename may replace only the file `held`: if another file has the
/// name `place` now, the function returns an error.
fn put_in_place(beside: &Path, place: &Path, held: Option<&File>) -> io::Result<()> {
    let taken = || io::Error::new(io::ErrorKind::AlreadyExists, "another file has its name now");
    let Some(held) = held else {
        return place::rename_new(beside, place).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => taken(),
            _ => error,
        });
    };
    match place::exchange(beside, place) {
        Ok(()) if place::is_at(held, beside) => std::fs::remove_file(beside),
        Ok(()) => {
            place::exchange(beside, place)?;
            Err(taken())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(taken()),
        // If the file system cannot exchange the names of two files, the function checks that `place` is
        // still the file `held`, and then renames `beside` to `place`.
        Err(_) if place::is_at(held, place) => std::fs::rename(beside, place),
        Err(_) => Err(taken()),
    }
}

/// Creates a temporary file in the folder of `place`. The drop of the returned `NamedTempFile` removes the
/// file.
fn new_beside(place: &Path) -> io::Result<NamedTempFile> {
    let mut prefix = place.file_name().unwrap_or_default().to_owned();
    prefix.push(".");
    let directory = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::Builder::new().prefix(&prefix).suffix(".new").tempfile_in(directory)
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
