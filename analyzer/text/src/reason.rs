//! The reason of an error of the operating system, in words.

/// The reason that the operating system gives for an error, in lower case and without the `(os error 2)` that
/// Rust adds.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn reason_has_no_number_and_begins_small() {
        assert_eq!(reason(&io::Error::from_raw_os_error(2)), "no such file or directory");
        assert_eq!(reason(&io::Error::other("It is a directory")), "it is a directory");
    }
}
