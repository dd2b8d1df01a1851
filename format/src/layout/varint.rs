//! LEB128 and zig-zag: encodings that store small numbers in few bytes.

/// Appends `value`, seven bits per byte, low bits first. The high bit of a byte is set if another byte
/// follows.
#[inline]
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Removes one number from the front of `bytes`. `None`: the bytes end inside the number, or the number does
/// not fit in 64 bits.
#[inline]
pub(crate) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    *bytes = rest;
    if first < 0x80 {
        return Some(u64::from(first));
    }
    let mut value = u64::from(first & 0x7f);
    for shift in (7..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        // Nine bytes hold 63 bits, so the tenth byte can hold only one more bit.
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Maps a wrapped difference to a small number if the difference is near 0, positive or negative: 0, −1, 1,
/// −2 → 0, 1, 2, 3.
#[inline]
pub(crate) fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ ((difference as i64 >> 63) as u64)
}

/// The inverse of [`zigzag`].
#[inline]
pub(crate) fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_number_survives(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            let mut rest = &bytes[..];
            prop_assert_eq!(take(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
            prop_assert_eq!(unzigzag(zigzag(value)), value);
            for cut in 0..bytes.len() {
                prop_assert_eq!(take(&mut &bytes[..cut]), None);
            }
        }
    }

    #[test]
    fn zigzag_orders_by_magnitude() {
        let folded = [0i64, -1, 1, -2, i64::MAX, i64::MIN].map(|n| zigzag(n as u64));
        assert_eq!(folded, [0, 1, 2, 3, u64::MAX - 1, u64::MAX]);
    }

    #[test]
    fn more_than_64_bits_is_refused() {
        let mut bytes = &[0xff; 9].iter().copied().chain([2]).collect::<Vec<_>>()[..];
        assert_eq!(take(&mut bytes), None);
        let mut bytes = &[0x80; 11][..];
        assert_eq!(take(&mut bytes), None);
    }
}
