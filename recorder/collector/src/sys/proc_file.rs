//! Reads files of /proc with three system calls. The standard library would make about ten system calls: the
//! standard library asks for the size of the file, which is 0 in /proc, and then begins with a read of 32
//! bytes.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// Number of bytes of the first read of a file of /proc. In one read, the kernel returns at most one page of
/// a file of /proc.
const PAGE: usize = 4096;

/// The content of a file of /proc.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    read_open(&mut File::open(path)?)
}

/// Reads an open file of /proc from the current position to the end.
pub(crate) fn read_open(file: &mut File) -> io::Result<Vec<u8>> {
    let (mut bytes, mut used) = (vec![0; PAGE], 0);
    loop {
        match file.read(&mut bytes[used..]) {
            Ok(0) => break,
            Ok(count) => used += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if used == bytes.len() {
            bytes.resize(2 * used, 0);
        }
    }
    bytes.truncate(used);
    Ok(bytes)
}

/// The content of a file of /proc as text.
pub(crate) fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Number of bytes of the first read when the collector searches for a line. At a read of a file of /proc,
/// the kernel creates only as many lines as fit into the given number of bytes.
const FEW: usize = 1024;

/// Whether `is_wanted` is true for any line of a file; `None`: the file is missing or empty. At each read,
/// the kernel creates the next lines of the file. The function stops reading at the wanted line, so the
/// kernel spends no time on the lines after this line.
pub(crate) fn has_line(path: impl AsRef<Path>, is_wanted: impl Fn(&str) -> bool) -> Option<bool> {
    let mut file = File::open(path).ok()?;
    let mut is_empty = true;
    let mut page = [0; PAGE];
    let mut size = FEW;
    let mut text = Vec::new();
    loop {
        let count = match file.read(&mut page[..size]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.ok()?,
        };
        is_empty &= count == 0;
        size = PAGE;
        text.extend_from_slice(page.get(..count)?);
        let end_of_line = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let whole = if count == 0 { text.len() } else { end_of_line };
        let lines: Vec<u8> = text.drain(..whole).collect();
        if String::from_utf8_lossy(&lines).lines().any(&is_wanted) {
            return Some(true);
        }
        if count == 0 {
            return (!is_empty).then_some(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn long_file_is_read_whole_and_every_line_is_seen() {
        let path = std::env::temp_dir().join(format!("edleak-lines-{}", std::process::id()));
        let text: String = (0..2000).map(|number| format!("line {number}\n")).collect();
        for text in [text.clone() + "no line feed", text] {
            fs::write(&path, &text).expect("temporary files can be made");
            assert_eq!(read_text(&path).ok().as_ref(), Some(&text));
            for line in text.lines() {
                assert_eq!(has_line(&path, |one| one == line), Some(true), "{line}");
            }
            assert_eq!(has_line(&path, |one| one == "line"), Some(false));
        }
        fs::write(&path, "").expect("it was made here");
        assert_eq!(has_line(&path, |_| true), None);
        fs::remove_file(&path).expect("it was made here");
        assert_eq!(has_line(&path, |_| true), None);
    }
}
