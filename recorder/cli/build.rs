//! Builds the preload library that edleak-record contains, from the sources of `recorder/preload` and
//! `recorder/session`.
//!
//! The directory `embedded/` contains symbolic links to these sources. `cargo package` puts the files to
//! which these links lead into the package, and not the links. So an installation from a checkout or from
//! crates.io needs no further step, and the script needs no network.
//!
//! The script calls rustc without cargo, for three reasons. First, the library must abort on panic, even if
//! the build profile of edleak-record does not. Second, the library must not be built with the user's
//! `RUSTFLAGS`: a library built with coverage, with a sanitizer or for a static libc could not be loaded into
//! other programs. Third, a cargo that the script starts would wait for the cargo that runs the script,
//! because both lock the target directory.
//!
//! The script keeps the library in the target directory, under a hash of the library's inputs. `cargo check`,
//! `clippy` and each profile run this script again, but the script compiles the library only once for all of
//! them.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

const LIBRARY: &str = "libedleak_preload.so";

fn main() {
    let target = variable("TARGET");
    assert!(
        target.starts_with("x86_64-") && target.contains("-linux-"),
        "edleak-record is for x86-64 Linux only, not for `{target}` (build it with --target \
         x86_64-unknown-linux-gnu)"
    );
    let sources = Path::new(&variable("CARGO_MANIFEST_DIR")).join("embedded");
    let mut build = Build {
        rustc: env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()),
        linker: env::var_os("RUSTC_LINKER"),
        version: variable("CARGO_PKG_VERSION"),
        link_arguments: fs::read_to_string(sources.join("link-arguments")).expect("a file of this package"),
        out: variable("OUT_DIR").into(),
        target,
        sources,
    };
    let finished = build.out.join(LIBRARY);
    let kept = kept_at(&build.out, build.hash());
    if fs::copy(&kept, &finished).is_ok() {
        return;
    }
    // The compiled library contains the paths of its sources. Pass real paths without links, so that every
    // build gives the same library.
    build.sources = fs::canonicalize(&build.sources).expect("a directory of this package");
    build.compile_session();
    build.link_preload();
    // Another build may run at the same time, so both builds rename complete files into place.
    let new = kept.with_extension(format!("{}", std::process::id()));
    let _ = kept.parent().map(fs::create_dir_all);
    if fs::copy(&finished, &new).and_then(|_| fs::rename(&new, &kept)).is_err() {
        let _ = fs::remove_file(&new);
    }
}

struct Build {
    rustc: OsString,
    linker: Option<OsString>,
    target: String,
    version: String,
    link_arguments: String,
    sources: PathBuf,
    out: PathBuf,
}

impl Build {
    /// A hash of all inputs of the library.
    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let version = Command::new(&self.rustc).arg("-vV").output().expect("the compiler runs").stdout;
        (version, &self.target, &self.linker, &self.version, &self.link_arguments).hash(&mut hasher);
        include_str!("build.rs").hash(&mut hasher);
        println!("cargo:rerun-if-changed=build.rs");
        println!("cargo:rerun-if-changed={}", self.sources.join("link-arguments").display());
        for file in files_below(&self.sources) {
            println!("cargo:rerun-if-changed={}", file.display());
            file.strip_prefix(&self.sources).unwrap_or(&file).hash(&mut hasher);
            fs::read(&file).expect("a file of this package").hash(&mut hasher);
        }
        hasher.finish()
    }

    fn compile_session(&self) {
        let mut rustc = self.rustc("edleak_session", "session");
        self.run(rustc.args(["--crate-type", "rlib"]));
    }

    fn link_preload(&self) {
        let mut rustc = self.rustc("edleak_preload", "preload");
        let session = self.out.join("libedleak_session.rlib");
        rustc.args(["--crate-type", "cdylib", "-C", "lto=thin", "-C", "strip=debuginfo"]);
        rustc.arg("--extern").arg(with("edleak_session=", &session));
        rustc.args(
            self.link_arguments.lines().flat_map(|argument| ["-C".into(), format!("link-arg={argument}")]),
        );
        self.run(&mut rustc);
    }

    /// The command for the compiler itself. A wrapper in `RUSTC_WRAPPER` applies only to cargo's own
    /// compilations.
    fn rustc(&self, name: &str, directory: &str) -> Command {
        let mut rustc = Command::new(&self.rustc);
        rustc.args(["--edition", "2024", "--crate-name", name, "--target", &self.target]);
        rustc.args([
            "-C",
            "panic=abort",
            "-C",
            "opt-level=3",
            "-C",
            "codegen-units=1",
            "--cap-lints",
            "allow",
        ]);
        if self.target.ends_with("-musl") {
            rustc.args(["-C", "target-feature=-crt-static", "-C", "link-self-contained=no"]);
        }
        if let Some(linker) = &self.linker {
            rustc.arg("-C").arg(with("linker=", linker));
        }
        let mut renamed = self.sources.clone().into_os_string();
        renamed.push("=edleak");
        rustc.arg("--remap-path-prefix").arg(renamed);
        rustc.arg("--out-dir").arg(&self.out).arg(self.sources.join(directory).join("lib.rs"));
        rustc.env("CARGO_PKG_VERSION", &self.version);
        for flags in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
            rustc.env_remove(flags);
        }
        rustc
    }

    fn run(&self, rustc: &mut Command) {
        let output = rustc.output().expect("the compiler runs");
        assert!(
            output.status.success(),
            "the preload library does not build: {rustc:?}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

fn with(prefix: &str, rest: &(impl AsRef<std::ffi::OsStr> + ?Sized)) -> OsString {
    let mut word = OsString::from(prefix);
    word.push(rest);
    word
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for build scripts"))
}

/// The path at which the script keeps the compiled library: in the target directory, which all profiles
/// share, or in `OUT_DIR` if the script does not find the target directory.
fn kept_at(out: &Path, hash: u64) -> PathBuf {
    let target = out.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file()).unwrap_or(out);
    target.join("embedded-preload").join(format!("{hash:016x}.so"))
}

/// All source files below a directory, sorted.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let entries = fs::read_dir(directory).expect("a directory of this package");
    for path in entries.map(|entry| entry.expect("a directory that was opened can be read").path()) {
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false if path.extension().is_some_and(|extension| extension == "rs") => files.push(path),
            false => {}
        }
    }
    files.sort();
    files
}
