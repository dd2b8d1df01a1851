//! Escapes text for a page, because a hostile program may have names that look like markup. This file also
//! encodes bytes as base 64.

use std::fmt::Write;

/// Escapes text between tags or inside a quoted attribute. In place of an invisible character, or a character
/// that changes the direction of text, the result has the number of this character.
pub(super) fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len() + raw.len() / 8);
    for c in raw.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if is_invisible(c) => {
                // Writing to a string cannot fail.
                let _ = write!(out, "⟨U+{:04X}⟩", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// Escapes a sentence. Text between backticks becomes a `<code>` element.
pub(super) fn sentence(raw: &str) -> String {
    let parts: Vec<String> = raw.split('`').map(text).collect();
    if parts.len().is_multiple_of(2) {
        return text(raw);
    }
    let part = |(i, part): (usize, String)| match i % 2 {
        0 => part,
        _ => format!("<code>{part}</code>"),
    };
    parts.into_iter().enumerate().map(part).collect()
}

/// Whether a character is a control character, or a mark that changes the direction of the text after it.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Encodes bytes in base 64, in the form that JavaScript's function `atob` reads.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0u32, |group, &byte| group << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            if digit <= chunk.len() {
                out.push(char::from(DIGITS[(group >> (18 - 6 * digit)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_text() {
        assert_eq!(text("</script><b a=\"'&"), "&lt;/script&gt;&lt;b a=&quot;&#39;&amp;");
        assert_eq!(text("a\u{202e}b\0\nc"), "a⟨U+202E⟩b⟨U+0000⟩⟨U+000A⟩c");
        assert_eq!(text("größe<T>"), "größe&lt;T&gt;");
    }

    #[test]
    fn words_between_backticks_are_code() {
        assert_eq!(sentence("use `a<b>` or `c`."), "use <code>a&lt;b&gt;</code> or <code>c</code>.");
        assert_eq!(sentence("one ` alone"), "one ` alone");
    }

    #[test]
    fn base64_is_the_published_one() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (raw, encoded) in cases {
            assert_eq!(base64(raw.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }
}
