//! Tests rules of the architecture: which code a file may contain, and which symbols the preload library may
//! contain.

use edleak_tests::module_uses::{files_in_a_circle, uses_of_files};
use edleak_tests::sources::{code_of, files, read, rust_files};
use edleak_tests::tools::{repository, tools};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether `code` contains `word` as a whole word, with no letter, digit or underscore before or after it.
fn has_word(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .any(|(at, _)| !code[..at].ends_with(is_part) && !code[at + word.len()..].starts_with(is_part))
}

#[test]
fn every_file_begins_with_a_caption() {
    for path in rust_files() {
        let text = read(&path);
        let first = text.lines().find(|line| !line.starts_with("#!/")).unwrap_or("");
        assert!(first.starts_with("//! "), "{}: the first line is no `//!` caption", path.display());
    }
}

#[test]
fn no_change_is_listed_twice() {
    let text = read(Path::new("CHANGELOG.md"));
    let items = text.split("\n- ").map(|item| item.split("\n\n").next().expect("split gives a part"));
    let items = items.map(|item| item.split_whitespace().collect::<Vec<_>>().join(" "));
    let mut seen = BTreeSet::new();
    for item in items {
        assert!(seen.insert(item.clone()), "listed twice: {item}");
    }
    assert!(seen.len() > 50, "only {} changes", seen.len());
}

/// The longest line that a source file may contain, in characters. rustfmt uses the same number.
const WIDTH: usize = 110;

/// Whether a line may be longer than `WIDTH`, because it cannot be broken.
fn is_unbreakable(line: &str) -> bool {
    let text = line.trim();
    let comment = ["//!", "///", "//", "#", "*"].iter().find_map(|mark| text.strip_prefix(mark));
    let content = comment.unwrap_or(text).trim_start();
    // A row of a table must be one line.
    let is_row = content.starts_with('|') && content.ends_with('|');
    // A line without a space, such as a web address or a mangled name, has no place for a break.
    let is_word = !content.contains(char::is_whitespace);
    is_row || is_word
}

/// rustfmt does not break long strings, comments and macros, and formats no other language. So this test
/// checks every line.
#[test]
fn no_line_is_longer_than_110_columns() {
    const KINDS: &[&str] = &[
        "*.rs", "*.c", "*.cpp", "*.h", "*.sh", "*.toml", "*.js", "*.css", "*.md", "*.yml", "*.py", "*.conf",
    ];
    let mut long = Vec::new();
    for kind in KINDS {
        let files = files(&[kind]);
        assert!(!files.is_empty(), "no file matches {kind}");
        for path in files {
            let is_markdown = *kind == "*.md";
            // Markdown shows an example of a command or of its output between two lines with ```. These lines
            // are those of the terminal.
            let mut is_example = false;
            for (index, line) in read(&path).lines().enumerate() {
                is_example ^= is_markdown && line.trim_start().starts_with("```");
                // In the prose of Markdown, a link and its address stay together.
                let is_link = is_markdown && line.contains("://");
                let is_exempt = is_example || is_link || is_unbreakable(line);
                if line.chars().count() > WIDTH && !is_exempt {
                    long.push(format!("{}:{}", path.display(), index + 1));
                }
            }
            assert!(!is_example, "{}: an example has no end", path.display());
        }
    }
    assert!(long.is_empty(), "lines longer than {WIDTH} columns: {}", long.join(", "));
}

#[test]
fn symbols_are_exported_in_one_file() {
    let exporting: Vec<_> = rust_files()
        .into_iter()
        .filter(|path| path.starts_with("recorder/preload"))
        .filter(|path| has_word(&code_of(path), "no_mangle"))
        .collect();
    assert_eq!(exporting, [PathBuf::from("recorder/preload/src/entry/exports.rs")]);
}

/// Without the crates `std` and `alloc`, Rust has no type that allocates and no lock.
#[test]
fn the_preload_uses_neither_std_nor_alloc() {
    let preload: Vec<_> =
        rust_files().into_iter().filter(|path| path.starts_with("recorder/preload/src")).collect();
    assert!(preload.len() >= 8, "the preload has {} files", preload.len());
    for path in &preload {
        assert!(!code_of(path).contains("extern crate"), "{}: another crate in the target", path.display());
    }
    assert!(read(Path::new("recorder/preload/src/lib.rs")).contains("no_std"), "the preload is `no_std`");
}

/// Removes all functions that are marked `#[cold]` from `code`.
fn without_cold_functions(code: &str) -> String {
    let mut parts = code.split("#[cold]");
    let mut rest = parts.next().expect("split gives at least one part").to_owned();
    for part in parts {
        // In Rust code, a function ends at the first closing brace at the start of a line, and a method ends
        // at the first closing brace that is indented by four columns.
        let end = part.find("\n}\n").or_else(|| part.find("\n    }\n"));
        rest.push_str(end.map_or("", |end| &part[end..]));
    }
    rest
}

/// A hot file contains code of the fast path of an allocation; the caption of the file begins with `HOT`. A
/// hot file may call a function of a cold file only if the called function is marked `#[cold]` or is inlined.
/// The rule does not apply to the calls in the hot file's own `#[cold]` functions.
#[test]
fn hot_files_call_cold_code_through_cold_functions_only() {
    let cold: BTreeMap<String, String> = preload_files("recorder/preload/src/cold/")
        .map(|path| (path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), code_of(&path)))
        .collect();
    let is_hot = |path: &PathBuf| read(path).starts_with("//! HOT");
    let (mut files, mut calls) = (0, 0);
    for path in preload_files("recorder/preload/src/").filter(is_hot) {
        files += 1;
        let code = without_cold_functions(&code_of(&path));
        assert!(!code.contains("arch::syscall"), "{}: a system call on the hot path", path.display());
        for (module, text) in &cold {
            let call = format!("{module}::");
            for (at, _) in code.match_indices(&call) {
                let name = &code[at + call.len()..];
                let end = name.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(name.len());
                if name[end..].starts_with('(') {
                    calls += 1;
                    assert!(
                        is_cold_or_inlined(text, &name[..end]),
                        "{}: `{call}{}` is neither cold nor inlined",
                        path.display(),
                        &name[..end]
                    );
                }
            }
        }
    }
    assert!(files >= 9 && calls >= 5, "{calls} calls in {files} hot files");
}

fn preload_files(folder: &str) -> impl Iterator<Item = PathBuf> {
    rust_files().into_iter().filter(move |path| path.starts_with(folder))
}

/// Whether the attributes of the function `name` mark it as cold or as inlined.
fn is_cold_or_inlined(code: &str, name: &str) -> bool {
    let head = format!("fn {name}");
    let starts = code.match_indices(&head).filter(|(at, _)| !code[at + head.len()..].starts_with('_'));
    starts.into_iter().any(|(at, _)| {
        let before: Vec<_> =
            code[..at].lines().rev().skip(1).take_while(|line| !line.trim().is_empty()).collect();
        let attributes = before.iter().take_while(|line| line.trim_start().starts_with("#["));
        attributes.into_iter().any(|line| line.contains("#[cold]") || line.contains("#[inline"))
    })
}

/// Checks that each crate denies unsafe code, and that only the listed files contain unsafe code.
#[test]
fn unsafe_code_is_only_in_the_listed_files() {
    for path in rust_files() {
        if path.starts_with("samples") || path.starts_with("benches") {
            continue;
        }
        let code = code_of(&path);
        if !has_word(&code, "unsafe") {
            continue;
        }
        // The word `unsafe` in an attribute or in the name of a lint is not unsafe code.
        let really =
            ["unsafe {", "unsafe fn", "unsafe extern", "unsafe impl"].iter().any(|form| code.contains(form));
        let is_test =
            path.components().any(|part| part.as_os_str() == "tests") && !path.starts_with("tests/src");
        if really && !is_test {
            assert!(
                read(&path).contains("allow(unsafe_code"),
                "{}: unsafe code in a file without `#![allow(unsafe_code)]`",
                path.display()
            );
        }
    }
    for root in [
        "format/src/lib.rs",
        "analyzer/text/src/lib.rs",
        "analyzer/binary/src/lib.rs",
        "analyzer/model/src/lib.rs",
        "analyzer/analysis/src/lib.rs",
        "analyzer/report/src/lib.rs",
        "recorder/session/src/lib.rs",
        "recorder/preload/src/lib.rs",
        "recorder/alloc/src/lib.rs",
    ] {
        let text = read(Path::new(root));
        assert!(
            text.contains("deny(unsafe_code)") || text.contains("forbid(unsafe_code)"),
            "{root}: no `deny(unsafe_code)`"
        );
    }
}

/// bincode is no longer developed, and edleak may have to replace it. So only the files of format/ may name
/// bincode.
#[test]
fn only_format_names_bincode() {
    for path in rust_files() {
        if path.starts_with("format") || path.ends_with("tidy.rs") {
            continue;
        }
        assert!(!has_word(&code_of(&path), "bincode"), "{} names bincode", path.display());
    }
}

/// For each edleak crate, the other edleak crates on which it may depend, directly or indirectly.
const MAY_USE: &[(&str, &[&str])] = &[
    ("edleak-format", &[]),
    ("edleak-text", &[]),
    ("edleak-session", &[]),
    ("edleak-preload", &["edleak-session"]),
    ("edleak-alloc", &["edleak-session"]),
    ("edleak-annotate", &[]),
    ("edleak-binary", &["edleak-format", "edleak-text"]),
    ("edleak-model", &["edleak-text"]),
    ("edleak-analysis", &["edleak-binary", "edleak-format", "edleak-model", "edleak-text"]),
    ("edleak-report", &["edleak-analysis", "edleak-binary", "edleak-format", "edleak-model", "edleak-text"]),
    (
        "edleak-collector",
        &["edleak-binary", "edleak-format", "edleak-model", "edleak-session", "edleak-text"],
    ),
    (
        "edleak-analyze",
        &[
            "edleak-analysis",
            "edleak-binary",
            "edleak-format",
            "edleak-model",
            "edleak-report",
            "edleak-text",
        ],
    ),
    (
        "edleak-record",
        &[
            "edleak-analysis",
            "edleak-binary",
            "edleak-collector",
            "edleak-format",
            "edleak-model",
            "edleak-report",
            "edleak-session",
            "edleak-text",
        ],
    ),
];

/// The crates that are no libraries, so that they may depend on clap.
const PROGRAMS: &[&str] = &["edleak-analyze", "edleak-record"];

/// Checks the dependencies of the crates. An arrow leads from a crate to the crates on which it depends:
/// preload → session ← collector → {format, binary, model, text}; report → analysis → {format, binary, model,
/// text}; each program uses its own half, and edleak-record also the analysis.
///
/// The test checks the dependencies that cargo resolves, not only the manifests, so it also finds indirect
/// dependencies.
#[test]
fn dependencies_point_one_way() {
    for (package, allowed) in MAY_USE {
        let used = dependencies_of(package);
        assert!(used.contains(*package), "cargo tree names {package} itself");
        for other in used.iter().filter(|other| other.starts_with("edleak-") && other != package) {
            assert!(allowed.contains(&other.as_str()), "{package} depends on {other}");
        }
        let is_program = PROGRAMS.contains(package);
        assert!(is_program || !used.contains("clap"), "{package} is a library, and depends on clap");
    }
}

/// All packages from which a crate is built, as `cargo tree` lists them.
fn dependencies_of(package: &str) -> BTreeSet<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let arguments = ["tree", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    let output = Command::new(cargo)
        .args(arguments)
        .args(["--package", package])
        .current_dir(repository())
        .output()
        .expect("cargo runs this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names of packages are ASCII");
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// If file A of a crate uses file B, then B must not use A, directly or indirectly. If no files use each
/// other in a circle, a reader can read the files of a crate one after another.
#[test]
fn no_file_of_a_crate_is_in_a_circle() {
    const ROOMS: &[&str] = &[
        "analyzer/text/src",
        "analyzer/binary/src",
        "analyzer/model/src",
        "analyzer/analysis/src",
        "analyzer/report/src",
        "analyzer/cli/src",
        "format/src",
        "recorder/session/src",
        "recorder/preload/src",
        "recorder/collector/src",
        "recorder/cli/src",
        "benches/src",
        "tests/src",
    ];
    for room in ROOMS {
        let uses = uses_of_files(Path::new(room));
        assert!(uses.len() > 2, "{room} has no files");
        let circle = files_in_a_circle(&uses);
        assert!(circle.is_empty(), "{room}: these files use each other: {circle:?}");
    }
}

/// The order in which `lib.rs` and ARCHITECTURE.md show the folders of the collector: a folder uses only
/// folders to its right.
#[test]
fn folders_of_the_collector_use_only_folders_below() {
    const ORDER: [&str; 10] =
        ["doctor", "start", "follow", "recording", "attach", "rules", "watch", "detour", "control", "sys"];
    let place = |module: &str| ORDER.iter().position(|folder| module.split("::").next() == Some(folder));
    let mut arrows = BTreeSet::new();
    for (module, used) in uses_of_files(Path::new("recorder/collector/src")) {
        for other in used {
            let (Some(from), Some(to)) = (place(&module), place(&other)) else { continue };
            assert!(from <= to, "`{module}` uses `{other}`, whose folder stands before its own");
            arrows.insert((from, to));
        }
    }
    assert!(arrows.len() > 20, "{arrows:?}");
}

#[test]
fn nothing_is_left_to_do_or_copied_from_here() {
    for path in rust_files() {
        if path.ends_with("tidy.rs") {
            continue;
        }
        let text = read(&path);
        for word in ["todo!", "unimplemented!", "FIXME", "dbg!("] {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
    }
}

fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("binutils must be there");
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("binutils print text")
}

/// Whether the preload library may export this symbol: it may export only functions that allocate or free
/// memory, and the functions that edleak.h looks for.
fn is_allocation_symbol(name: &str) -> bool {
    const C: &[&str] = &[
        "malloc",
        "calloc",
        "realloc",
        "reallocarray",
        "free",
        "cfree",
        "posix_memalign",
        "aligned_alloc",
        "memalign",
        "valloc",
        "pvalloc",
        "mmap",
        "mmap64",
        "munmap",
        "mremap",
        "shmat",
        "shmdt",
        "madvise",
        "free_sized",
        "free_aligned_sized",
        // edleak.h looks up the next two functions by name.
        "edleak_set_mark",
        "edleak_note_pool",
    ];
    // The mangled names of operator new, new[], delete and delete[] begin with _Znw, _Zna, _Zdl and _Zda.
    C.contains(&name) || ["_Znw", "_Zna", "_Zdl", "_Zda"].iter().any(|prefix| name.starts_with(prefix))
}

#[test]
fn the_preload_exports_allocation_symbols_only() {
    let preload = tools().preload.to_str().expect("a path in UTF-8");
    let exported = tool("nm", &["-D", "--defined-only", preload]);
    let mut count = 0;
    for name in exported.lines().filter_map(|line| line.split_whitespace().last()) {
        assert!(is_allocation_symbol(name), "the preload exports `{name}`");
        count += 1;
    }
    assert!(count >= 30, "only {count} symbols are exported");
}

#[test]
fn the_preload_imports_dlsym_only() {
    let preload = tools().preload.to_str().expect("a path in UTF-8");
    let imported = tool("nm", &["-D", "--undefined-only", preload]);
    let names: Vec<_> = imported.lines().filter_map(|line| line.split_whitespace().last()).collect();
    let names: Vec<_> = names.iter().map(|name| name.split('@').next().unwrap_or("")).collect();
    assert_eq!(names, ["dlsym"]);
}

#[test]
fn the_preload_needs_no_library() {
    let preload = tools().preload.to_str().expect("a path in UTF-8");
    let dynamic = tool("readelf", &["-dW", preload]);
    assert!(dynamic.contains("SONAME") || dynamic.contains("INIT_ARRAY") || dynamic.contains("SYMTAB"));
    assert!(!dynamic.contains("NEEDED"), "{dynamic}");
    assert!(!dynamic.contains("TEXTREL"), "{dynamic}");
    let segments = tool("readelf", &["-lW", preload]);
    let tls = segments.lines().find(|line| line.trim_start().starts_with("TLS"));
    let size =
        tls.and_then(|line| line.split_whitespace().nth(5)).expect("the preload has thread-local state");
    let size =
        u64::from_str_radix(size.trim_start_matches("0x"), 16).expect("readelf prints hexadecimal sizes");
    assert!(size <= 64, "{size} bytes of static TLS: there may be no more to spare");
}
