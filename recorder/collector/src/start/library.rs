//! Finds the library to load into the target, and checks that the library has the version of this
//! edleak-record.
//!
//! The collector looks for a library at these places, in this order:
//!
//! | place                                        | the library is used if                                |
//! |----------------------------------------------|-------------------------------------------------------|
//! | `EDLEAK_PRELOAD`                             | the variable is set; an unusable library is an error  |
//! | edleak-record's directory or `../lib/edleak` | no other user could write it and its version is right |
//! | the copy inside edleak-record                | no other library is; see [`crate::start::unpack`]     |

use crate::error::Error;
use crate::start::loadable::{NAME, can_be_executed, can_be_named, library};
use crate::start::unpack;
use edleak_session::IDENTITY;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The environment variable with the path of a preload library. If the variable `EDLEAK_PRELOAD` is set,
/// edleak-record uses no other preload library.
const VARIABLE: &str = "EDLEAK_PRELOAD";
/// The maximum size in bytes of a file that edleak-record accepts as the library. The library has about 100
/// KiB.
const MAX_BYTES: u64 = 16 << 20;

/// The copy of the library inside edleak-record.
#[derive(Clone, Copy, Debug)]
pub struct Embedded(pub &'static [u8]);

/// The kind of place where edleak-record found the library.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// The environment variable `EDLEAK_PRELOAD` contains the path of the library.
    Variable,
    /// The library is in the directory of edleak-record, or in `../lib/edleak`.
    Beside,
    /// edleak-record unpacked the library from the copy inside itself.
    Unpacked,
}

/// Finds the preload library. If no library file is usable, unpacks the copy inside edleak-record.
///
/// # Errors
/// There is no usable library, and no directory into which the copy inside edleak-record could be unpacked.
/// The error message says, for each place, why edleak-record cannot use a library there, and names the
/// environment variable to set.
pub(crate) fn find(embedded: Option<Embedded>) -> Result<(PathBuf, Origin), Error> {
    let here = std::env::current_exe().and_then(std::fs::canonicalize).unwrap_or_default();
    find_from(&here, std::env::var_os(VARIABLE), embedded)
}

fn find_from(
    program: &Path,
    variable: Option<OsString>,
    embedded: Option<Embedded>,
) -> Result<(PathBuf, Origin), Error> {
    if let Some(named) = variable.filter(|path| !path.is_empty()) {
        let path =
            std::fs::canonicalize(&named).map_err(library).and_then(|path| check(&path).map(|()| path));
        return path.map(|path| (path, Origin::Variable)).map_err(|why| {
            library(format!("{VARIABLE} names `{}`, which cannot be used: {why}", named.display()))
                .with_remedy("name this version's library, or unset the variable")
        });
    }
    let here = program.parent().unwrap_or(Path::new("/"));
    let mut unusable = None;
    for candidate in [here.join(NAME), here.join("../lib/edleak").join(NAME)] {
        let Ok(path) = std::fs::canonicalize(candidate) else { continue };
        match is_trusted(&path, program).and_then(|()| check(&path)) {
            Ok(()) => return Ok((path, Origin::Beside)),
            Err(why) => unusable = Some(format!("`{}` cannot be used: {why}", path.display())),
        }
    }
    match embedded {
        Some(Embedded(bytes)) => unpack::unpack(bytes).map(|path| (path, Origin::Unpacked)),
        None => {
            let why = unusable.unwrap_or_else(|| format!("`{NAME}` is not beside edleak-record"));
            let remedy = format!("build it with `cargo build --release`, or set {VARIABLE}");
            Err(library(why).with_remedy(remedy))
        }
    }
}

/// Checks that the file at `path` can be loaded and has the version of this edleak-record.
fn check(path: &Path) -> Result<(), Error> {
    can_be_named(path)?;
    let file = File::open(path).map_err(library)?;
    let metadata = file.metadata().map_err(library)?;
    if !metadata.is_file() {
        return Err(library("it is not a file"));
    }
    let mut bytes = Vec::with_capacity(metadata.len().min(MAX_BYTES) as usize + 1);
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(library)?;
    check_identity(&bytes)?;
    can_be_executed(path)
}

/// Checks that a library has the session layout and the version of this edleak-record.
fn check_identity(bytes: &[u8]) -> Result<(), Error> {
    const PREFIX: &[u8] = b"edleak-preload ";
    if !bytes.starts_with(b"\x7fELF") {
        return Err(library("it is not a library"));
    }
    if !has_all_sections(bytes) {
        return Err(library("it is cut off"));
    }
    let own = IDENTITY.trim_end_matches('\0');
    let found = bytes.windows(PREFIX.len()).position(|window| window == PREFIX);
    let Some(found) = found.and_then(|at| bytes[at..].split(|&byte| byte == 0).next()) else {
        return Err(library("it is not edleak's library, or it is damaged"));
    };
    if found == own.as_bytes() {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(&found[PREFIX.len()..found.len().min(60)]);
    Err(library(format!("it is of version {shown}, and this edleak-record is of {}", &own[PREFIX.len()..])))
}

/// Whether an ELF file contains its whole section table. Linkers write the section table at the end of a
/// file, so the table is missing or incomplete in a file that was cut off.
fn has_all_sections(bytes: &[u8]) -> bool {
    let field = |at: usize, length: usize| {
        let bytes = bytes.get(at..at + length)?;
        Some(bytes.iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte)))
    };
    let (Some(table), Some(entry), Some(count)) = (field(0x28, 8), field(0x3a, 2), field(0x3c, 2)) else {
        return false;
    };
    table.checked_add(entry * count).is_some_and(|end| end <= bytes.len() as u64)
}

/// Checks that nobody except root, this user and the owner of edleak-record could have written the file.
fn is_trusted(path: &Path, program: &Path) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::metadata(path).map_err(library)?;
    let owner = std::fs::metadata(program).map_or(0, |program| program.uid());
    let (uid, gid) = unpack::effective_ids();
    if ![0, uid, owner].contains(&file.uid()) {
        return Err(library(format!("it belongs to another user (uid {})", file.uid())));
    }
    let is_open_to_group = file.mode() & 0o020 != 0 && ![0, gid].contains(&file.gid());
    if file.mode() & 0o002 != 0 || is_open_to_group {
        return Err(library("other users may write to it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn library(identity: &str) -> Vec<u8> {
        let header = [b"\x7fELF".as_slice(), &[0; 60]].concat();
        [header.as_slice(), identity.as_bytes(), b"\0...."].concat()
    }

    #[test]
    fn library_of_another_version_is_refused_by_name() {
        assert_eq!(check_identity(&library(IDENTITY.trim_end_matches('\0'))), Ok(()));
        let other = check_identity(&library("edleak-preload 0.0.1 (session layout 3)"));
        assert!(
            other.is_err_and(|why| why
                .message()
                .starts_with("it is of version 0.0.1 (session layout 3), and"))
        );
        assert!(check_identity(&library("x")).is_err_and(|why| why.message().contains("not edleak's")));
        let mut cut_off = library(IDENTITY);
        cut_off[0x28] = 200;
        assert!(check_identity(&cut_off).is_err_and(|why| why.message() == "it is cut off"));
        assert!(check_identity(b"text").is_err_and(|why| why.message().contains("not a library")));
    }

    #[test]
    fn file_that_others_may_write_is_not_trusted() {
        let dir = std::env::temp_dir().join(format!("edleak-library-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("writable");
        let file = dir.join(NAME);
        std::fs::write(&file, library("x")).expect("writable");
        for (mode, is_good) in [(0o644, true), (0o755, true), (0o666, false), (0o602, false)] {
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).expect("ours");
            assert_eq!(is_trusted(&file, &file).is_ok(), is_good, "{mode:o}");
        }
        std::fs::remove_dir_all(&dir).expect("ours");
    }

    #[test]
    fn variable_that_names_no_library_is_an_error_with_its_remedy() {
        let found = find_from(Path::new("/bin/true"), Some("/nowhere/x.so".into()), None);
        let message = found.expect_err("there is none").to_string();
        assert!(message.starts_with("EDLEAK_PRELOAD names `/nowhere/x.so`"), "{message}");
        assert!(message.ends_with("or unset the variable)"), "{message}");
    }
}
