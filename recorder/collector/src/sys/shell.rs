//! Quotes names for a shell, so that a user can copy a command from a message.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A name as one word of a shell, on one line. A shell with `$'…'`, such as bash or zsh, reads the word back
/// as exactly the bytes of the name.
///
/// If the name has control characters or bytes that are not UTF-8, the word has the form `$'…'`, with these
/// bytes as octal numbers.
pub fn word(name: impl AsRef<OsStr>) -> String {
    let name = name.as_ref();
    let is_plain = |text: &str| !text.contains(char::is_control);
    match name.to_str() {
        // A name without control characters has no NUL, the only character that shlex cannot quote.
        Some(text) if is_plain(text) => shlex::try_quote(text).unwrap_or(text.into()).into_owned(),
        _ => format!("$'{}'", escaped(name)),
    }
}

/// A path of a file as one word of a shell. A relative path that begins with `-` gets `./` in front, so that
/// no program takes the path for an option.
pub fn path(path: impl AsRef<OsStr>) -> String {
    let path = path.as_ref();
    if !path.as_bytes().starts_with(b"-") {
        return word(path);
    }
    let mut below_here = OsStr::new("./").to_owned();
    below_here.push(path);
    word(below_here)
}

/// A command line, quoted for a shell. If the words after the first do not fit into `most` characters, the
/// function leaves out the last words and writes `…` in their place.
pub(crate) fn command<S: AsRef<OsStr>>(words: &[S], most: usize) -> String {
    let mut line = String::new();
    for (index, next) in words.iter().enumerate() {
        let next = word(next);
        if index > 0 && line.chars().count() + 1 + next.chars().count() > most {
            return line + " …";
        }
        line = if index == 0 { next } else { line + " " + &next };
    }
    line
}

/// A name as text without control characters, in the form that a shell reads between `$'` and `'`.
pub(crate) fn escaped(name: &OsStr) -> String {
    name.as_bytes().utf8_chunks().map(chunk).collect()
}

/// The name for which [`escaped`] gives `text`.
pub(crate) fn unescaped(text: &str) -> OsString {
    let (mut name, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        let number = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let number = number.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        let (byte, left) = match (first, number, after) {
            (b'\\', Some(number), _) => (number, &after[3..]),
            (b'\\', None, [escaped, left @ ..]) => (*escaped, left),
            _ => (*first, after),
        };
        name.push(byte);
        rest = left;
    }
    OsString::from_vec(name)
}

/// The part of a `$'…'` word for some valid characters and the invalid bytes after them.
fn chunk(chunk: std::str::Utf8Chunk<'_>) -> String {
    let octal = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\{byte:03o}")).collect::<String>();
    let escaped = |character: char| match character {
        '\\' | '\'' => format!("\\{character}"),
        _ if character.is_control() => octal(character.encode_utf8(&mut [0; 4]).as_bytes()),
        _ => character.to_string(),
    };
    chunk.valid().chars().map(escaped).collect::<String>() + &octal(chunk.invalid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const NAMES: [&[u8]; 11] = [
        b"trace.edl",
        b"/tmp/a b/t.edl",
        b"it's",
        b"$HOME;ls",
        b"a\nb\\c'd",
        b"-x",
        b"- x",
        "é\u{1b}[m\u{85}".as_bytes(),
        b"\xff1",
        b"caf\xe9 \xf0\x9f",
        b"",
    ];

    #[test]
    fn bash_reads_a_word_back_as_the_same_bytes() {
        for name in NAMES {
            let quoted = word(OsStr::from_bytes(name));
            assert!(!quoted.contains(char::is_control) && !quoted.contains('\u{fffd}'), "{quoted:?}");
            for locale in ["C", "C.UTF-8"] {
                let script = format!("printf %s {quoted}");
                let printed = Command::new("bash").env("LC_ALL", locale).args(["-c", &script]).output();
                // `printf` takes a word that begins with `-` as text here, because `%s` comes first.
                assert_eq!(printed.expect("bash is there").stdout, name, "{quoted} in {locale}");
            }
        }
        assert_eq!(word("trace.edl"), "trace.edl");
        assert_eq!(word(OsStr::from_bytes(b"a\nb\xff")), r"$'a\012b\377'");
    }

    #[test]
    fn escaped_name_is_read_back_as_the_same_bytes() {
        for name in NAMES.map(OsStr::from_bytes) {
            let text = escaped(name);
            assert!(!text.contains(char::is_control), "{text:?}");
            assert_eq!(unescaped(&text), name, "{text}");
        }
        assert_eq!(unescaped("\\"), "\\");
    }

    #[test]
    fn path_is_no_option() {
        assert_eq!(path("-x"), "./-x");
        assert_eq!(path("- x"), "'./- x'");
        assert_eq!(path("/-x"), "/-x");
    }

    #[test]
    fn long_command_is_cut_between_words() {
        assert_eq!(command(&["./a b", "c"], 40), "'./a b' c");
        assert_eq!(command(&["./server", "--port", "80"], 15), "./server --port …");
        assert_eq!(command(&["./a-long-name", "x"], 5), "./a-long-name …");
        assert_eq!(command::<&str>(&[], 5), "");
    }
}
