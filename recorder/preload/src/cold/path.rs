//! COLD: a short path that is stored on the stack, because the library does not use the target's heap.
#![allow(unsafe_code)]

use core::ffi::c_void;

/// A short NUL-terminated path, stored on the stack.
pub(crate) struct Path {
    bytes: [u8; 512],
    length: usize,
}

impl Path {
    /// An empty path.
    pub(crate) const fn new() -> Path {
        Path { bytes: [0; 512], length: 0 }
    }

    /// Whether the path is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends a byte. `false`: the byte does not fit.
    pub(crate) fn push(&mut self, byte: u8) -> bool {
        match self.bytes.get_mut(self.length) {
            Some(place) if self.length + 1 < 512 => {
                *place = byte;
                self.length += 1;
                true
            }
            _ => false,
        }
    }

    /// Appends a NUL-terminated string. `false`: the string does not fit.
    pub(crate) fn push_c(&mut self, mut from: *const u8) -> bool {
        loop {
            // SAFETY: the string is NUL-terminated, and the loop ends there.
            match unsafe { *from } {
                0 => return true,
                byte if !self.push(byte) => return false,
                _ => from = from.wrapping_add(1),
            }
        }
    }

    /// Appends bytes. `false`: the bytes do not fit.
    pub(crate) fn push_all(&mut self, bytes: &[u8]) -> bool {
        bytes.iter().all(|&byte| self.push(byte))
    }

    /// Appends a number in decimal.
    pub(crate) fn push_number(&mut self, number: u32) {
        let mut divisor = 1;
        while number / divisor >= 10 {
            divisor *= 10;
        }
        while divisor > 0 {
            self.push(b'0' + (number / divisor % 10) as u8);
            divisor /= 10;
        }
    }

    /// The beginning of the path up to its last slash, including the slash.
    pub(crate) fn parent(&self) -> Path {
        let mut parent = Path::new();
        let end = (0..self.length).rev().find(|&i| self.bytes[i] == b'/').map_or(0, |slash| slash + 1);
        for index in 0..end {
            parent.push(self.bytes[index]);
        }
        parent
    }

    /// The path before the `#`, and the hexadecimal number after the `#`. `None`: the path does not end in
    /// `#` and a hexadecimal number.
    pub(super) fn split_nonce(&self) -> Option<(Path, u64)> {
        let text = self.bytes.get(..self.length)?;
        let at = text.iter().position(|&byte| byte == b'#')?;
        let mut path = Path::new();
        path.push_all(text.get(..at)?);
        let digits = text.get(at + 1..).filter(|digits| (1..=16).contains(&digits.len()))?;
        let nonce = digits.iter().try_fold(0u64, |number, &byte| {
            let digit = (byte as char).to_digit(16)?;
            Some(number << 4 | u64::from(digit))
        })?;
        Some((path, nonce))
    }

    /// The path with its NUL.
    pub(crate) fn as_c(&self) -> &[u8] {
        self.bytes.get(..=self.length).unwrap_or(b"\0")
    }

    /// The path as a C string.
    pub(crate) fn as_ptr(&self) -> *const c_void {
        self.bytes.as_ptr().cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_path_is_the_control_path_with_another_number() {
        let mut path = Path::new();
        assert!(path.push_all(b"/proc/123/fd/4"));
        let mut session = path.parent();
        session.push_number(1203);
        assert_eq!(session.as_c(), b"/proc/123/fd/1203\0");
        let mut zero = Path::new();
        zero.push_number(0);
        assert_eq!(zero.as_c(), b"0\0");
    }

    #[test]
    fn the_address_of_a_session_is_a_path_and_a_nonce() {
        let split = |text: &[u8]| {
            let mut address = Path::new();
            address.push_all(text);
            address.split_nonce().map(|(path, nonce)| (path.as_c().to_vec(), nonce))
        };
        assert_eq!(split(b"/proc/1/fd/4#00ff"), Some((b"/proc/1/fd/4\0".to_vec(), 255)));
        assert_eq!(split(b"/p#ffffffffffffffff"), Some((b"/p\0".to_vec(), u64::MAX)));
        for bad in [&b"/proc/1/fd/4"[..], b"", b"/p#", b"/p#xy", b"/p#00000000000000000"] {
            assert_eq!(split(bad), None);
        }
    }

    #[test]
    fn a_path_that_is_too_long_is_refused() {
        let mut path = Path::new();
        assert!(!path.push_all(&[b'x'; 600]));
        assert_eq!(path.as_c().last(), Some(&0));
    }
}
