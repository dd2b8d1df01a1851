//! A trace to another trace: with symbols embedded, or with its names taken out. The slices are copied as they are.

use crate::error::reason;
use crate::error::{Error, ErrorKind, Result};
use edleak_binary::embed::build_trace;
use edleak_binary::{Resolution, Symbolizer};
use edleak_format::{DEFAULT_CAPACITY_BYTES, Record, SymbolFrame, Trace, place, rewrite};
use siphasher::sip128::SipHasher24;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Writes `from` to `to` with the frames of every address that it names. `to` may be the file that `from` was read from.
///
/// # Errors
/// If the new trace cannot be written.
pub fn embed(from: &Trace, to: &Path, symbolizer: &Symbolizer) -> Result<Resolution> {
    let (symbols, resolution) = build_trace(symbolizer, from);
    let keep = |record| (!matches!(record, Record::Symbols(_))).then_some(record);
    replace(from, to, keep, symbols.into_iter().map(Record::Symbols))?;
    Ok(resolution)
}

/// Writes `from` to `to` with every name and path replaced by a stable hash of it and of `key`.
///
/// The same name has the same hash in every trace that was anonymized with the same key, so that traces can still be compared. Line
/// numbers, offsets, times and counters stay. Without a key whoever guesses a name can confirm it.
///
/// # Errors
/// If the new trace cannot be written.
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
            other => other,
        })
    };
    replace(from, to, map, std::iter::empty())
}

/// Sixteen hexadecimal digits for a name.
///
/// SipHash-2-4, and not a hash with the key put before the name: names like `main` are in every trace, and whoever knows one
/// must not learn from its hash what confirms the others.
fn pseudonym(key: &str, name: &[u8]) -> String {
    let key = SipHasher24::new().hash(key.as_bytes());
    format!("{:016x}", SipHasher24::new_with_key(&key.as_bytes()).hash(name).as_u64().0)
}

/// Writes beside `to` first and puts it in place when it is whole: an interrupted run leaves the old file. What was there keeps its
/// owner and mode, and a link leads where it led.
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
    // Held until the new file is in place: no recording takes the name meanwhile.
    let held = match std::fs::symlink_metadata(&place) {
        Ok(there) if !there.is_file() => return Err(failed("it is no file")),
        Ok(_) => Some(place::open(&place).map_err(|error| failed(&reason(&error)))?),
        Err(_) => None,
    };
    if held.as_ref().is_some_and(|file| !place::lock(file)) {
        return Err(failed("it is still being recorded, and the rest would be lost"));
    }
    let (beside, made) = new_beside(&place).map_err(|error| failed(&reason(&error)))?;
    let written = rewrite(from, &beside, DEFAULT_CAPACITY_BYTES.saturating_mul(16), map, extra)
        .map_err(|error| failed(&error.to_string()))
        .and_then(|_| {
            if let Some(old) = held.as_ref().and_then(|file| file.metadata().ok()) {
                // Who may not give a file away keeps it: the trace itself is whole.
                let _ = std::os::unix::fs::fchown(&made, Some(old.uid()), Some(old.gid()));
                let _ = made.set_permissions(old.permissions());
            }
            put_in_place(&beside, &place, held.as_ref()).map_err(|error| failed(&reason(&error)))
        });
    if written.is_err() && place::is_at(&made, &beside) {
        // It is ours, and there is nothing to save in it.
        let _ = std::fs::remove_file(&beside);
    }
    written
}

/// Gives the file `beside` the name `place`, in place of `held`, and of no other file.
fn put_in_place(beside: &Path, place: &Path, held: Option<&File>) -> io::Result<()> {
    let taken = || io::Error::new(io::ErrorKind::AlreadyExists, "another file has taken its name meanwhile");
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
        // A file system that cannot exchange: a look and a step.
        Err(_) if place::is_at(held, place) => std::fs::rename(beside, place),
        Err(_) => Err(taken()),
    }
}

/// A new file beside `place`, which nobody else has or gets.
fn new_beside(place: &Path) -> io::Result<(PathBuf, File)> {
    let mut attempt = 0u32;
    loop {
        let mut name = place.as_os_str().to_owned();
        name.push(format!(".{}-{attempt}.new", std::process::id()));
        let path = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(made) => return Ok((path, made)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < u32::MAX => attempt += 1,
            Err(error) => return Err(error),
        }
    }
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
        // For ever: traces of different years are compared by these.
        assert_eq!(pseudonym("key", b"main"), "70e767086352f127");
    }
}
