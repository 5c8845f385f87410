//! Slot masks: what a provider stores is the piece XOR a keystream of the slot's own.
//!
//! ```text
//! seed      = BLAKE3 keyed hash, under the drive's 32-byte mask key, of
//!             "holdfast slot seed v1" || piece id (16 bytes) || slot (u16, big endian)
//! keystream = ChaCha20 (RFC 8439 block function) under the seed, nonce "hf.mask1" || 4 zero bytes,
//!             block counter from 0: byte i of the slot is byte i of the piece XOR byte i of the keystream
//! ```
//!
//! The RFC's 32-bit counter bounds a slot to 256 GiB, less the last block, which implementations do not agree on. Masks make the copies of a piece differ, so that one stored
//! copy cannot answer for another; they are no replacement for the encryption below.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The longest slot, set by the cipher's block counter.
pub const SLOT_BYTES_MAX: u64 = (256 << 30) - 64;

const SEED_DOMAIN: &[u8] = b"holdfast slot seed v1";
const NONCE: [u8; 12] = *b"hf.mask1\0\0\0\0";

/// The secret from which one slot's keystream grows.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SlotSeed([u8; 32]);

impl SlotSeed {
    /// A seed kept elsewhere (a repair capability carries seeds).
    pub fn from_bytes(bytes: [u8; 32]) -> SlotSeed {
        SlotSeed(bytes)
    }

    /// The seed's bytes, to be kept as secret as the mask key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for SlotSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SlotSeed(secret)")
    }
}

/// The seed of slot `slot` of piece (or stripe) `piece`.
pub fn slot_seed(mask_key: &[u8; 32], piece: [u8; 16], slot: u16) -> SlotSeed {
    let mut hasher = blake3::Hasher::new_keyed(mask_key);
    hasher.update(SEED_DOMAIN);
    hasher.update(&piece);
    hasher.update(&slot.to_be_bytes());
    SlotSeed(*hasher.finalize().as_bytes())
}

/// Masks or unmasks `buf`, which lies at `offset` of the slot. Its own inverse.
///
/// Fails when the range reaches past [`SLOT_BYTES_MAX`]; `buf` is then unchanged.
pub fn apply(seed: &SlotSeed, offset: u64, buf: &mut [u8]) -> Result<(), MaskError> {
    let end = offset.checked_add(buf.len() as u64).ok_or(MaskError)?;
    if end > SLOT_BYTES_MAX {
        return Err(MaskError);
    }
    let mut cipher = ChaCha20::new(&seed.0.into(), &NONCE.into());
    cipher.try_seek(offset).map_err(|_| MaskError)?;
    cipher.try_apply_keystream(buf).map_err(|_| MaskError)
}

/// A range beyond the longest slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the range reaches past the longest slot")]
pub struct MaskError;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn is_its_own_inverse_and_seekable() {
        let seed = slot_seed(&[7; 32], [9; 16], 2);
        let plain: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        let mut whole = plain.clone();
        apply(&seed, 0, &mut whole).unwrap();
        assert_ne!(whole, plain);
        for (from, to) in [(0, 1), (63, 65), (64, 128), (1, 9_999), (4_096, 10_000)] {
            let mut part = plain[from..to].to_vec();
            apply(&seed, from as u64, &mut part).unwrap();
            assert_eq!(part, whole[from..to]);
        }
        apply(&seed, 0, &mut whole).unwrap();
        assert_eq!(whole, plain);
    }

    #[test]
    fn slots_pieces_and_keys_differ() {
        let base = slot_seed(&[1; 32], [2; 16], 3);
        assert_ne!(base, slot_seed(&[1; 32], [2; 16], 4));
        assert_ne!(base, slot_seed(&[1; 32], [3; 16], 3));
        assert_ne!(base, slot_seed(&[2; 32], [2; 16], 3));
    }

    #[test]
    fn reaches_the_end_of_the_longest_slot_and_not_beyond() {
        let seed = SlotSeed::from_bytes([1; 32]);
        let mut buf = [0u8; 64];
        apply(&seed, SLOT_BYTES_MAX - 64, &mut buf).unwrap();
        assert_ne!(buf, [0u8; 64]);
        assert_eq!(apply(&seed, SLOT_BYTES_MAX - 63, &mut buf), Err(MaskError));
        assert_eq!(apply(&seed, u64::MAX, &mut buf), Err(MaskError));
    }
}
