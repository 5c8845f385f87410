//! Varints out of anyone's bytes: minimal, and with no bit beyond the 64th. One number, one encoding.
//!
//! `unsigned_varint` refuses padding but shifts bits out of the tenth byte without a word, so that several encodings would
//! read as one number; and what is read here stands in nodes and rows that are compared by their bytes.

use std::io::{self, Read};
use unsigned_varint::decode;

/// Bytes of the largest number; of the last of them only the lowest bit fits.
const BYTES_MAX: usize = 10;

/// A number from the front of `bytes`, and what follows it.
pub(crate) fn take(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (value, rest) = decode::u64(bytes).ok()?;
    let fits = bytes.len() - rest.len() < BYTES_MAX || bytes.get(BYTES_MAX - 1) == Some(&1);
    fits.then_some((value, rest))
}

/// A number of at most `bytes_max` bytes (9 at most) from a stream, and how many it took; nothing at the stream's end. What is
/// longer or padded is `InvalidData`, one that is cut short `UnexpectedEof`.
pub(crate) fn read(input: &mut impl Read, bytes_max: u32) -> io::Result<Option<(u64, u64)>> {
    let mut value = 0u64;
    for group in 0..bytes_max.min(9) {
        let mut byte = [0];
        if let Err(error) = input.read_exact(&mut byte) {
            let clean = group == 0 && error.kind() == io::ErrorKind::UnexpectedEof;
            return if clean { Ok(None) } else { Err(error) };
        }
        let [byte] = byte;
        value |= u64::from(byte & 0x7f) << (7 * group);
        if byte & 0x80 == 0 {
            let padded = byte == 0 && group > 0;
            return if padded {
                Err(io::ErrorKind::InvalidData.into())
            } else {
                Ok(Some((value, u64::from(group) + 1)))
            };
        }
    }
    Err(io::ErrorKind::InvalidData.into())
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
