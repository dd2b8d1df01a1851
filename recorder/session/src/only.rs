//! Chooses the programs to record among all programs that inherit the preload library: compares patterns with
//! the names of the programs' files.
//!
//! | pattern        | is compared with                       | matches                       |
//! |----------------|----------------------------------------|-------------------------------|
//! | `server*`      | the last component of the path         | `/srv/bin/server-2`           |
//! | `/srv/bin/*`   | the whole path, since it has a slash   | every program below /srv/bin  |
//!
//! `*` matches any number of characters, `?` matches exactly one character, and a colon separates two
//! patterns.

/// Whether a program's file matches one of the patterns.
pub fn is_wanted(patterns: &[u8], file: &[u8]) -> bool {
    let name = file.rsplit(|&byte| byte == b'/').next().unwrap_or(file);
    patterns.split(|&byte| byte == b':').filter(|pattern| !pattern.is_empty()).any(|pattern| {
        let text = if pattern.contains(&b'/') { file } else { name };
        matches(pattern, text)
    })
}

/// Matches a pattern. At a mismatch, the function returns to the last `*` and lets this `*` match one
/// character more than before. The function never goes back to an earlier `*` of the pattern, so it makes
/// at most as many steps as the product of the lengths of `pattern` and `text`.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut in_pattern, mut in_text) = (0, 0);
    let mut last_star = None;
    while let Some(&byte) = text.get(in_text) {
        match pattern.get(in_pattern) {
            Some(b'*') => {
                last_star = Some((in_pattern + 1, in_text));
                in_pattern += 1;
            }
            Some(&wanted) if wanted == byte || wanted == b'?' => {
                in_pattern += 1;
                in_text += 1;
            }
            _ => match last_star {
                None => return false,
                Some((after, from)) => {
                    last_star = Some((after, from + 1));
                    (in_pattern, in_text) = (after, from + 1);
                }
            },
        }
    }
    pattern.get(in_pattern..).unwrap_or(b"").iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_is_compared_with_the_name_or_with_the_path() {
        let cases: [(&str, &str, bool); 14] = [
            ("server", "/usr/bin/server", true),
            ("server", "/usr/bin/server-2", false),
            ("server*", "/usr/bin/server-2", true),
            ("server*", "/server/mkdir", false),
            ("*", "/bin/x", true),
            ("?s", "ls", true),
            ("?s", "s", false),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "aXcXb", false),
            ("/usr/*", "/usr/bin/server", true),
            ("/usr/*", "/bin/usr", false),
            ("nginx:server*", "./server", true),
            ("nginx:", "", false),
            ("", "/bin/x", false),
        ];
        for (patterns, file, expected) in cases {
            assert_eq!(is_wanted(patterns.as_bytes(), file.as_bytes()), expected, "{patterns} {file}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = b"*a".repeat(200);
        let text = b"a".repeat(4000);
        assert!(!is_wanted(&[pattern.as_slice(), b"b"].concat(), &text));
    }
}
