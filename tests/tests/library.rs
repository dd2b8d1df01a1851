//! Tests which preload library edleak-record uses. edleak-record never uses a library of another version, a
//! damaged library, or a library that another user could have written.

use edleak_tests::analyze::analyze;
use edleak_tests::run::{Outcome, run};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

const LIBRARY: &str = "libedleak_preload.so";

/// A directory that contains only edleak-record, and a cache directory that only this edleak-record uses.
struct Installed {
    dir: TempDir,
}

impl Installed {
    fn new(name: &str) -> Installed {
        let dir = TempDir::new(name);
        fs::create_dir(dir.join("bin")).expect("writable");
        edleak_tests::run::copy_program(&tools().record, &dir.join("bin/edleak-record"));
        // No other user may have the right to change a directory on the path to the cache.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("ours");
        Installed { dir }
    }

    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Outcome {
        run(Command::new(self.dir.join("bin/edleak-record"))
            .args(arguments)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("XDG_CACHE_HOME", self.dir.join("cache"))
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .envs(variables.iter().copied()))
    }

    /// Records a program. Returns the text with which `edleak-record doctor` describes the library that
    /// edleak-record used.
    fn records_with(&self) -> String {
        let recorded = self.run(&["-q", "-o", "trace.edl", "--", "ls", "/"], &[]);
        assert_eq!(recorded.code, 0, "{recorded:?}");
        assert_eq!(analyze(["verify"], &self.dir.join("trace.edl")).code, 0);
        let doctor = self.run(&["doctor"], &[]);
        let line = doctor.stdout.lines().find(|line| line.contains("library"));
        line.unwrap_or_else(|| panic!("{doctor:?}")).to_owned()
    }

    fn beside(&self) -> PathBuf {
        self.dir.join("bin").join(LIBRARY)
    }

    /// The content of the preload library of this version.
    fn own_library(&self) -> Vec<u8> {
        let unpacked = self.run(&["unpack", "unpacked"], &[]);
        assert_eq!(unpacked.code, 0, "{unpacked:?}");
        fs::read(self.dir.join("unpacked").join(LIBRARY)).expect("it was just written")
    }
}

/// Changes the version in `library` to a version of edleak that does not exist.
fn of_another_version(mut library: Vec<u8>) -> Vec<u8> {
    const NAME: &[u8] = b"edleak-preload ";
    let at =
        library.windows(NAME.len()).position(|window| window == NAME).expect("the note names the version");
    library[at + NAME.len()] = b'9';
    library
}

#[test]
fn program_alone_unpacks_its_library_once() {
    let installed = Installed::new("library-alone");
    assert!(installed.records_with().ends_with("(unpacked from edleak-record)"));
    // Count only the directories of the cache, because the cache also contains files with compiled unwind
    // rules.
    let versions = || {
        let entries = fs::read_dir(installed.dir.join("cache/edleak")).expect("made");
        entries.flatten().filter(|entry| entry.path().is_dir()).count()
    };
    assert_eq!(versions(), 1, "one directory for this version");
    installed.records_with();
    assert_eq!(versions(), 1);
}

#[test]
fn library_of_another_version_beside_the_program_is_not_used() {
    let installed = Installed::new("library-other");
    let library = installed.own_library();
    fs::write(installed.beside(), &library).expect("writable");
    assert!(installed.records_with().ends_with("(it lies beside edleak-record)"));
    fs::write(installed.beside(), of_another_version(library.clone())).expect("writable");
    assert!(installed.records_with().ends_with("(unpacked from edleak-record)"));
    // Write only the first half of the library beside edleak-record. The first half looks valid, because the
    // note with the version is in the first pages. edleak-record must refuse the damaged library.
    fs::write(installed.beside(), &library[..library.len() / 2]).expect("writable");
    assert!(installed.records_with().ends_with("(unpacked from edleak-record)"));
}

#[test]
fn library_that_others_may_write_beside_the_program_is_not_used() {
    let installed = Installed::new("library-open");
    fs::write(installed.beside(), installed.own_library()).expect("writable");
    fs::set_permissions(installed.beside(), Permissions::from_mode(0o666)).expect("ours");
    assert!(installed.records_with().ends_with("(unpacked from edleak-record)"));
}

#[test]
fn variable_that_names_another_version_is_an_error_with_both_versions() {
    let installed = Installed::new("library-variable");
    let other = installed.dir.join("other.so");
    fs::write(&other, of_another_version(installed.own_library())).expect("writable");
    let path = other.to_str().expect("UTF-8");
    let refused = installed.run(&["ls"], &[("EDLEAK_PRELOAD", path)]);
    assert_eq!((refused.code, refused.stderr.lines().count()), (125, 1), "{refused:?}");
    for part in ["it is of version 9.", "and this edleak-record is of 0.", "or unset the variable)"] {
        assert!(refused.stderr.contains(part), "no `{part}`: {}", refused.stderr);
    }
}

#[test]
fn copy_that_was_changed_is_written_anew() {
    let installed = Installed::new("library-changed");
    installed.records_with();
    // The cache contains a directory for each version, and other files.
    let entries = fs::read_dir(installed.dir.join("cache/edleak")).expect("made");
    let mut copies = entries.map(|entry| entry.expect("ours").path().join(LIBRARY));
    let copy = copies.find(|copy| copy.is_file()).expect("one version is unpacked");
    let whole = fs::read(&copy).expect("it was just written");
    fs::write(&copy, &whole[..whole.len() / 2]).expect("ours");
    installed.records_with();
    assert!(fs::read(&copy).expect("it is there") == whole);
}

#[test]
fn path_that_the_loader_cannot_take_leads_to_the_next_place() {
    let installed = Installed::new("library-space");
    let cache = installed.dir.join("a cache");
    let runtime = installed.dir.path().to_str().expect("UTF-8").to_owned();
    let variables =
        [("XDG_CACHE_HOME", cache.to_str().expect("UTF-8")), ("XDG_RUNTIME_DIR", runtime.as_str())];
    let recorded = installed.run(&["-q", "-o", "trace.edl", "--", "ls", "/"], &variables);
    assert_eq!(recorded.code, 0, "{recorded:?}");
    assert!(!cache.exists() && installed.dir.join("edleak").is_dir());
}
