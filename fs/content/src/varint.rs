//! Varints out of anyone's bytes: minimal, and with no bit beyond the 64th. One number, one encoding.
//!
//! `unsigned_varint` refuses padding but shifts bits out of the tenth byte without a word, so that several encodings would
//! read as one number; and what is read here stands in nodes and rows that are compared by their bytes.

use unsigned_varint::decode;

/// Bytes of the largest number; of the last of them only the lowest bit fits.
const BYTES_MAX: usize = 10;

/// A number from the front of `bytes`, and what follows it.
pub(crate) fn take(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (value, rest) = decode::u64(bytes).ok()?;
    let fits = bytes.len() - rest.len() < BYTES_MAX || bytes.get(BYTES_MAX - 1) == Some(&1);
    fits.then_some((value, rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_number_has_one_encoding() {
        for value in [0, 1, 127, 128, u64::from(u32::MAX), u64::MAX >> 1, u64::MAX] {
            let mut buffer = unsigned_varint::encode::u64_buffer();
            let mut bytes = unsigned_varint::encode::u64(value, &mut buffer).to_vec();
            bytes.push(9);
            assert_eq!(take(&bytes), Some((value, &[9][..])));
        }
        let largest = [255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
        assert_eq!(take(&largest), Some((u64::MAX, &[][..])));
        for last in 2..128 {
            let mut more = largest;
            more[9] = last;
            assert_eq!(take(&more), None, "{last} in the tenth byte");
        }
        assert_eq!(take(&[0x80, 0]), None, "padded");
        assert_eq!(take(&[0x80]), None, "cut short");
    }
}
