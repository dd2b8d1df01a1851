//! The programs that the tests record, from samples/ and tests/programs/. samples/build.sh builds each
//! directory once.

use crate::run::{cannot_run, run};
use crate::tools::{repository, target_dir};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

/// A directory of source files, and the directory of the programs that are built from these files.
#[derive(Debug)]
pub struct Programs {
    sources: PathBuf,
    binaries: PathBuf,
}

/// The programs of samples/.
pub fn samples() -> &'static Programs {
    static SAMPLES: OnceLock<Result<Programs, String>> = OnceLock::new();
    Programs::built(&SAMPLES, "samples")
}

/// The programs of tests/programs/.
pub fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Result<Programs, String>> = OnceLock::new();
    Programs::built(&PROGRAMS, "tests/programs")
}

/// The programs of tests/programs/hosts/.
pub fn hosts() -> &'static Programs {
    static HOSTS: OnceLock<Result<Programs, String>> = OnceLock::new();
    Programs::built(&HOSTS, "tests/programs/hosts")
}

/// The programs of tests/programs/allocators/.
pub fn allocators() -> &'static Programs {
    static ALLOCATORS: OnceLock<Result<Programs, String>> = OnceLock::new();
    Programs::built(&ALLOCATORS, "tests/programs/allocators")
}

/// The path of the program in tests/programs/allocators/rust that uses the allocator `name`. cargo builds the
/// program with the profile `profile`.
pub fn rust_allocator(name: &str, profile: &str) -> PathBuf {
    built_by_cargo(name, name, profile, None)
}

/// The libc of a static Rust program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Static {
    /// glibc.
    Gnu,
    /// musl. rustup must have installed the target x86_64-unknown-linux-musl.
    Musl,
}

impl Static {
    /// The libcs for which this machine can build static programs.
    pub fn all() -> Vec<Static> {
        let sysroot = run(Command::new("rustc").args(["--print", "sysroot"])).stdout;
        let libraries = Path::new(sysroot.trim()).join("lib/rustlib").join(Static::Musl.target());
        if !libraries.exists() {
            cannot_run("no static programs with musl: `rustup target add x86_64-unknown-linux-musl`");
            return vec![Static::Gnu];
        }
        vec![Static::Gnu, Static::Musl]
    }

    fn target(self) -> &'static str {
        match self {
            Static::Gnu => "x86_64-unknown-linux-gnu",
            Static::Musl => "x86_64-unknown-linux-musl",
        }
    }
}

/// The path of the program `name` of tests/programs/allocators/rust, linked statically.
pub fn static_program(name: &str, libc: Static) -> PathBuf {
    built_by_cargo(name, "counted", "release", Some(libc))
}

/// Builds a program of tests/programs/allocators/rust with cargo, once for each set of arguments.
fn built_by_cargo(name: &str, feature: &str, profile: &str, libc: Option<Static>) -> PathBuf {
    static BUILT: Mutex<BTreeSet<(String, String, Option<Static>)>> = Mutex::new(BTreeSet::new());
    let target = target_dir().join("test-programs").join("allocators-rust");
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if built.insert((name.to_owned(), profile.to_owned(), libc)) {
        let manifest = repository().join("tests/programs/allocators/rust/Cargo.toml");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--locked", "--profile", profile, "--features", feature]);
        cargo.args(["--bin", name]).arg("--manifest-path").arg(manifest);
        // Build without the `RUSTFLAGS` of the tests: the allocators are C code, for which these flags are
        // not meant.
        cargo.arg("--target-dir").arg(&target).env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        if let Some(libc) = libc {
            cargo.args(["--target", libc.target()]).env("RUSTFLAGS", "-Ctarget-feature=+crt-static");
        }
        let status = cargo.status().expect("cargo must be there to build the programs");
        assert!(status.success(), "the programs of tests/programs/allocators/rust do not build");
    }
    let of_libc = libc.map_or(target.clone(), |libc| target.join(libc.target()));
    of_libc.join(profile).join(name)
}

/// The programs of tests/programs/attribution/.
pub fn attribution() -> &'static Programs {
    static ATTRIBUTION: OnceLock<Result<Programs, String>> = OnceLock::new();
    Programs::built(&ATTRIBUTION, "tests/programs/attribution")
}

/// The programs of tests/programs/stacks/.
pub fn stacks() -> &'static Programs {
    static STACKS: OnceLock<Result<Programs, String>> = OnceLock::new();
    Programs::built(&STACKS, "tests/programs/stacks")
}

impl Programs {
    /// Builds a directory of programs once. The error of a failed build is stored, so that all tests that
    /// need the same programs fail without a second build.
    fn built(cell: &'static OnceLock<Result<Programs, String>>, directory: &str) -> &'static Programs {
        cell.get_or_init(|| Programs::build(directory)).as_ref().unwrap_or_else(|reason| panic!("{reason}"))
    }

    fn build(directory: &str) -> Result<Programs, String> {
        let sources = repository().join(directory);
        let binaries = target_dir().join("test-programs").join(directory.replace('/', "-"));
        let status = Command::new(repository().join("samples/build.sh"))
            .arg("-s")
            .arg(&sources)
            .arg(&binaries)
            .status()
            .expect("bash must be there to build the samples");
        if !status.success() {
            return Err(format!(
                "the programs of {directory} do not build (tests/setup.sh installs what they need)"
            ));
        }
        Ok(Programs { sources, binaries })
    }

    /// The path of the program `name`.
    pub fn binary(&self, name: &str) -> PathBuf {
        self.binaries.join(name)
    }

    /// The directory of the built programs.
    pub fn binaries(&self) -> &Path {
        &self.binaries
    }

    /// The source files of all programs, sorted by name. The list does not contain shared libraries and
    /// helper programs.
    pub fn sources(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.sources).expect("the directory is part of the repository");
        let mut sources: Vec<_> = entries
            .map(|entry| entry.expect("a directory that was opened can be read").path())
            .filter(|path| {
                let name = path.file_name().expect("an entry has a name").to_string_lossy();
                let is_source =
                    matches!(path.extension(), Some(e) if e == "c" || e == "cpp" || e == "rs" || e == "S");
                is_source
                    && !(name.starts_with("lib") && name.ends_with(".c"))
                    && !name.starts_with("helper_")
            })
            .collect();
        sources.sort();
        sources
    }
}

/// The name of the program built from `source`.
pub fn name_of(source: &Path) -> String {
    source.file_stem().expect("a source has a name").to_string_lossy().into_owned()
}
