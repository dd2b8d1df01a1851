//! The rule cache stores the compiled rules of libraries on disk, so that the next run of edleak-record does
//! not compile these rules again. Without the cache, even a program that runs for only 1 ms waits several
//! milliseconds until the rules for the wrappers of libc are compiled.
//!
//! The cache has one small file for each build ID, below `$XDG_CACHE_HOME/edleak` or `~/.cache/edleak`. The
//! environment variable `EDLEAK_CACHE_DIR` sets another directory; if this variable is empty, edleak-record
//! uses no cache. A wrong rule would make the target read outside its stack. So edleak-record uses a cache
//! file only if all four of these values match: the version of edleak-record, the build ID of the library,
//! the version of the library file, and the checksum of the cache file. edleak-record never uses a directory
//! to which other users can write.

use crate::rules::code_range::CodeRange;
use edleak_session::site::Action;
use std::fs::{self, File, Metadata};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The first eight bytes of a cache file: "edlrules".
const MAGIC: u64 = u64::from_le_bytes(*b"edlrules");
/// Maximum number of files in the cache. When the cache contains this number of files, edleak-record deletes
/// all files of the cache.
const MOST_FILES: usize = 1024;
/// Maximum size of a cache file in bytes; edleak-record does not read a larger file.
const MOST_BYTES: u64 = 8 << 20;
const RANGE_BYTES: usize = 12;
const HEAD_BYTES: usize = 40;

/// The rules that edleak-record compiled from one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CachedRules {
    /// The code ranges of the wrappers in the file.
    pub(crate) wrappers: Vec<CodeRange>,
    /// The link-time address of the file's first byte.
    pub(crate) link_base: u64,
}

/// The rule cache in one directory. Each version of edleak-record uses only the rules that the same version
/// has stored.
pub(crate) struct RuleCache {
    directory: PathBuf,
    /// A number that identifies this version of edleak-record. Two versions of edleak-record may compile
    /// different rules from the same file.
    recorder: u64,
}

/// The rule cache of this process; `None`: no directory is safe for a cache.
pub(crate) static CACHE: LazyLock<Option<RuleCache>> = LazyLock::new(RuleCache::open);

impl RuleCache {
    fn open() -> Option<RuleCache> {
        let directory = match std::env::var_os("EDLEAK_CACHE_DIR") {
            Some(directory) if directory.is_empty() => return None,
            Some(directory) => PathBuf::from(directory),
            None => {
                let cache =
                    std::env::var_os("XDG_CACHE_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
                let cache =
                    cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
                is_ours_alone(&cache).then(|| cache.join("edleak"))?
            }
        };
        RuleCache::in_directory(directory, identity(&fs::metadata("/proc/self/exe").ok()?))
    }

    fn in_directory(directory: PathBuf, recorder: u64) -> Option<RuleCache> {
        if !directory.is_absolute() {
            return None;
        }
        // If the directory exists already, `create` fails, and this error does not matter.
        let _ = fs::DirBuilder::new().mode(0o700).create(&directory);
        is_ours_alone(&directory).then_some(RuleCache { directory, recorder })
    }

    /// The rules of the library file with this build ID and version; `None`: the cache does not contain these
    /// rules.
    pub(crate) fn load(&self, build_id: &[u8], version: u64) -> Option<CachedRules> {
        let file = File::open(self.path(build_id)?).ok()?;
        if file.metadata().ok()?.len() > MOST_BYTES {
            return None;
        }
        let mut bytes = Vec::new();
        (&file).read_to_end(&mut bytes).ok()?;
        self.decode(&bytes, build_id, version)
    }

    /// Stores the compiled rules of a file in the cache. If the cache cannot be written, the next run
    /// compiles the rules again.
    pub(crate) fn store(&self, build_id: &[u8], version: u64, known: &CachedRules) {
        let Some(path) = self.path(build_id) else { return };
        let Some(bytes) = self.encode(build_id, version, known) else { return };
        if fs::read_dir(&self.directory).is_ok_and(|files| files.count() >= MOST_FILES) {
            for file in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
                let _ = fs::remove_file(file.path());
            }
        }
        // Write the file under a temporary name and then rename it, so that no other process reads a
        // half-written file. If writing or renaming fails, the temporary file is deleted.
        let draft = tempfile::Builder::new().prefix("draft.").tempfile_in(&self.directory);
        if let Ok(mut draft) = draft
            && draft.write_all(&bytes).is_ok()
        {
            let _ = draft.persist(path);
        }
    }

    fn path(&self, build_id: &[u8]) -> Option<PathBuf> {
        let is_usual = (8..=64).contains(&build_id.len());
        let digits: String = build_id.iter().map(|byte| format!("{byte:02x}")).collect();
        is_usual.then(|| self.directory.join(digits))
    }

    fn encode(&self, build_id: &[u8], version: u64, known: &CachedRules) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + known.wrappers.len() * RANGE_BYTES + 8);
        for word in self.head(build_id, version).into_iter().chain([known.link_base]) {
            bytes.extend(word.to_le_bytes());
        }
        for range in &known.wrappers {
            for word in [u32::try_from(range.start).ok()?, u32::try_from(range.end).ok()?, range.action.0] {
                bytes.extend(word.to_le_bytes());
            }
        }
        bytes.extend(checksum(&bytes).to_le_bytes());
        Some(bytes)
    }

    fn decode(&self, bytes: &[u8], build_id: &[u8], version: u64) -> Option<CachedRules> {
        let (content, sum) = bytes.split_last_chunk::<8>()?;
        let (head, ranges) = content.split_first_chunk::<HEAD_BYTES>()?;
        let (words, _) = head.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let (ranges, rest) = ranges.as_chunks::<RANGE_BYTES>();
        let is_whole = rest.is_empty() && u64::from_le_bytes(*sum) == checksum(content);
        if !is_whole || words[..4] != self.head(build_id, version) {
            return None;
        }
        let range = |bytes: &[u8; RANGE_BYTES]| {
            let (words, _) = bytes.as_chunks::<4>();
            let word = |at: usize| u32::from_le_bytes(words[at]);
            CodeRange { start: u64::from(word(0)), end: u64::from(word(1)), action: Action(word(2)) }
        };
        Some(CachedRules { wrappers: ranges.iter().map(range).collect(), link_base: words[4] })
    }

    fn head(&self, build_id: &[u8], version: u64) -> [u64; 4] {
        [MAGIC, self.recorder, checksum(build_id), version]
    }
}

/// Computes a number from the metadata of a file. The number changes when the file is replaced or written.
fn identity(file: &Metadata) -> u64 {
    let words = [file.dev(), file.ino(), file.size(), file.mtime() as u64, file.mtime_nsec() as u64];
    checksum(&words.map(u64::to_le_bytes).concat())
}

/// Whether a directory exists, belongs to this user, and can be written only by this user.
fn is_ours_alone(directory: &Path) -> bool {
    let own = fs::metadata("/proc/self").map(|own| own.uid());
    fs::metadata(directory).is_ok_and(|directory| {
        directory.is_dir() && directory.mode() & 0o022 == 0 && own.is_ok_and(|own| directory.uid() == own)
    })
}

/// Computes a checksum similar to FNV-1a, but from eight bytes at a time. The checksum detects files that a
/// failing disk or a killed program has damaged.
fn checksum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    let sum = words.iter().fold(bytes.len() as u64, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, &byte| mix(sum, u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILD_ID: [u8; 20] = [7; 20];

    fn directory(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("edleak-rules-{name}-{}", std::process::id()))
    }

    fn known() -> CachedRules {
        let range =
            |start| CodeRange { start, end: start + 9, action: Action((start as u32).wrapping_mul(3)) };
        CachedRules { wrappers: vec![range(100), range(0xffff_0000)], link_base: 0x40_0000 }
    }

    #[test]
    fn compiled_rules_come_back_for_the_same_file_and_recorder_only() {
        let directory = directory("same");
        let cache = RuleCache::in_directory(directory.clone(), 5).expect("temporary files can be made");
        assert_eq!(cache.load(&BUILD_ID, 1000), None);
        cache.store(&BUILD_ID, 1000, &known());
        assert_eq!(cache.load(&BUILD_ID, 1000), Some(known()));
        assert_eq!(cache.load(&BUILD_ID, 1001), None, "the file was stripped");
        let newer = RuleCache { directory: directory.clone(), recorder: 6 };
        assert_eq!(newer.load(&BUILD_ID, 1000), None);
        newer.store(&BUILD_ID, 1000, &CachedRules { wrappers: Vec::new(), link_base: 0 });
        assert_eq!(newer.load(&BUILD_ID, 1000), Some(CachedRules { wrappers: Vec::new(), link_base: 0 }));
        assert_eq!(cache.load(&[1, 2, 3], 1000), None, "no build ID");
        let _ = fs::remove_dir_all(directory);
    }

    #[test]
    fn a_damaged_file_of_the_cache_counts_as_nothing() {
        let directory = directory("damaged");
        let cache = RuleCache::in_directory(directory.clone(), 5).expect("temporary files can be made");
        cache.store(&BUILD_ID, 1000, &known());
        let path = cache.path(&BUILD_ID).expect("a build ID of the usual length");
        let sound = fs::read(&path).expect("it was written");
        for at in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[at] ^= 0x10;
            assert_eq!(cache.decode(&damaged, &BUILD_ID, 1000), None, "byte {at}");
            assert_eq!(cache.decode(&sound[..at], &BUILD_ID, 1000), None, "cut off at {at}");
        }
        assert_eq!(cache.decode(&sound, &BUILD_ID, 1000), Some(known()));
        let _ = fs::remove_dir_all(directory);
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let directory = directory("shared");
        fs::create_dir_all(&directory).expect("temporary files can be made");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).expect("it is ours");
        assert!(RuleCache::in_directory(directory.clone(), 5).is_none());
        let _ = fs::remove_dir_all(directory);
        assert!(RuleCache::in_directory(PathBuf::from("relative"), 5).is_none());
    }
}
