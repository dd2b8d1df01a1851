//! Runs the reference tools `llvm-symbolizer` and GNU `addr2line`, to get the frames that they give for an
//! address.

use crate::programs::run;
use edleak_binary::demangle;
use std::fmt::Write;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

/// A frame in a form in which the frames of different tools can be compared: edleak demangles the name, the
/// path has no `.` and `..`, and an unknown line is 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    pub function: String,
    pub file: String,
    pub line: u32,
}

impl Frame {
    pub(crate) fn new(function: Option<&str>, file: Option<&str>, line: u32) -> Frame {
        // If the line is unknown, a tool prints nothing, 0 or `?` in place of the line, and may still print a
        // file. A frame with an unknown line gets no file here.
        let file = if line == 0 { String::new() } else { file.map(clean).unwrap_or_default() };
        Frame { function: function.unwrap_or("??").to_owned(), file, line }
    }
}

/// The path with `.` and `..` removed.
fn clean(path: &str) -> String {
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean.display().to_string()
}

/// The frames that `llvm-symbolizer` gives, for each address.
pub(crate) fn llvm(program: &Path, addresses: &[u64]) -> Vec<Vec<Frame>> {
    let object = format!("--obj={}", program.display());
    ask("llvm-symbolizer", &[&object, "-a", "-i", "-f", "--no-demangle", "--output-style=GNU"], addresses)
}

/// The frames that GNU `addr2line` gives, for each address.
pub(crate) fn gnu(program: &Path, addresses: &[u64]) -> Vec<Vec<Frame>> {
    ask("addr2line", &["-e", &program.display().to_string(), "-a", "-i", "-f"], addresses)
}

/// Runs one tool for all addresses, and returns the frames that the tool printed for each address. Both
/// tools begin the output for each address with the address itself.
fn ask(tool: &str, arguments: &[&str], addresses: &[u64]) -> Vec<Vec<Frame>> {
    let text = converse(tool, arguments, addresses);
    let mut blocks: Vec<String> = Vec::new();
    for line in text.lines() {
        if line.starts_with("0x") {
            blocks.push(String::new());
        } else if let Some(block) = blocks.last_mut() {
            writeln!(block, "{line}").expect("a string takes everything");
        }
    }
    assert_eq!(blocks.len(), addresses.len(), "one answer for each address");
    blocks.iter().map(|block| parse(block)).collect()
}

/// Parses the frames that a tool printed for one address. The output has two lines for each frame: the
/// mangled name of the function, and then `file:line`, sometimes with further text.
fn parse(block: &str) -> Vec<Frame> {
    let lines: Vec<&str> = block.lines().filter(|line| !line.is_empty()).collect();
    lines
        .chunks(2)
        .map(|pair| {
            let [function, place] = pair else { panic!("half a frame in {block:?}") };
            let place = place.split(" (").next().unwrap_or_default();
            let (file, line) = place.rsplit_once(':').unwrap_or((place, "0"));
            Frame::new(Some(&demangle(function)), Some(file), line.parse().unwrap_or(0))
        })
        .collect()
}

fn converse(tool: &str, arguments: &[&str], addresses: &[u64]) -> String {
    use std::io::Write as _;
    run(Path::new("/"), tool, ["--version"]);
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it ran a moment ago");
    let mut stdin = child.stdin.take().expect("it was asked for");
    let questions: String = addresses.iter().map(|address| format!("{address:#x}\n")).collect();
    // A separate thread writes the addresses to the tool while this thread reads the tool's output. If one
    // thread first wrote all addresses and then read the output, a full pipe could block the tool and the
    // test for ever.
    let asking = std::thread::spawn(move || stdin.write_all(questions.as_bytes()));
    let output = child.wait_with_output().expect("it was started");
    asking.join().expect("writing does not panic").expect("the tool reads all questions");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
