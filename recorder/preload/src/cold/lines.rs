//! COLD: reads a file of /proc line by line.

use crate::cold::sys;

/// The decimal number in a line of /proc.
pub(super) fn number_in(line: &[u8]) -> u32 {
    let digits = line.iter().filter(|byte| byte.is_ascii_digit());
    digits.fold(0u32, |number, &byte| number.wrapping_mul(10).wrapping_add(u32::from(byte - b'0')))
}

/// Passes every line of a file to `visit` until `visit` returns true. Returns whether `visit` returned true.
/// If a line is longer than 1,024 bytes, `visit` gets only its first 1,024 bytes.
pub(super) fn for_each_line(path: &[u8], mut visit: impl FnMut(&[u8]) -> bool) -> bool {
    let Some(fd) = sys::open(path, false) else { return false };
    let mut line = [0u8; 1024];
    let mut used = 0;
    let mut buffer = [0u8; 1024];
    let mut found = false;
    'file: loop {
        let read = sys::read(fd, &mut buffer);
        if read == 0 {
            break;
        }
        for &byte in buffer.iter().take(read) {
            if byte == b'\n' {
                if visit(line.get(..used).unwrap_or(b"")) {
                    found = true;
                    break 'file;
                }
                used = 0;
            } else if let Some(place) = line.get_mut(used) {
                *place = byte;
                used += 1;
            }
        }
    }
    sys::close(fd);
    found
}
