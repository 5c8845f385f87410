//! Chunks of files, sealed into raw leaves.
//!
//! ```text
//! payload = plain, or its zstd frame when that is at least 1/16 shorter
//! key     = BLAKE3 keyed by the convergence key over (suite u8, codec u8, payload)
//! block   = ChaCha20-Poly1305(key, nonce 0, ad none, payload) || tag(16)          CID: raw, sha2-256
//! ```
//!
//! The key depends on exactly the bytes that are encrypted, so one key never meets two messages: another version of zstd
//! makes other payloads and therefore other keys. Equal chunks of one drive become equal blocks; without the convergence
//! key nobody can confirm a guess. Suite, codec and plain length stand in the row that names the chunk, never in the block.

use crate::aead::{self, TAG_BYTES};
use crate::block::{BLOCK_BYTES_MAX, Block, BlockError};
use crate::keys::{ConvergenceKey, DedupKey};
use crate::rng::{Rng, RngError, random};
use std::cell::RefCell;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The cipher suite of chunks: BLAKE3 keys, ChaCha20-Poly1305.
pub const SUITE: u8 = 1;
/// The largest chunk: its block, with tag, stays within [`BLOCK_BYTES_MAX`].
pub const PLAIN_BYTES_MAX: usize = 1 << 20;
/// zstd's level: one pass at some 0.6 GB/s on text, far quicker on what does not compress.
const ZSTD_LEVEL: i32 = 1;
/// A compressed payload must save this share of the plain length (1/16), or decompression is not worth its time.
const GAIN_SHIFT: u32 = 4;

/// How the payload was made from the plain bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Codec {
    /// The payload is the plain bytes.
    Plain = 0,
    /// The payload is one zstd frame.
    Zstd = 1,
}

impl Codec {
    /// The codec's number in rows.
    pub fn to_byte(self) -> u8 {
        self as u8
    }

    /// The codec of a number in a row.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Plain),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The key of one chunk. It lives in the namespace, never in the DAG.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ChunkKey([u8; 32]);

impl ChunkKey {
    /// A key read from a row.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key's bytes, for a row.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for ChunkKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChunkKey(..)")
    }
}

/// An encrypted chunk. Only sealing makes one.
#[derive(Clone, Debug)]
pub struct SealedChunk {
    /// The leaf.
    pub block: Block,
    /// What opens it.
    pub key: ChunkKey,
    /// How its payload was made.
    pub codec: Codec,
    /// How many bytes it opens to.
    pub plain_len: u32,
}

/// Why a chunk was not sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// More than [`PLAIN_BYTES_MAX`].
    #[error("a chunk of {0} bytes exceeds the limit of {PLAIN_BYTES_MAX}")]
    TooLarge(usize),
    /// The key does not fit the block.
    #[error("the chunk's key does not open its block")]
    WrongKey,
    /// The payload does not give the length that the row promises.
    #[error("the chunk does not decode to {expected} bytes: {why}")]
    BadPayload {
        /// The promised length.
        expected: u32,
        /// What happened instead.
        why: String,
    },
    /// zstd failed to compress (out of memory).
    #[error("compression failed: {0}")]
    Compression(std::io::Error),
    /// The block could not be made.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// No randomness for a random key.
    #[error(transparent)]
    Rng(#[from] RngError),
}

thread_local! {
    /// zstd contexts hold some hundred KiB of tables: made once for each thread that seals or opens.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Seals under the drive's convergence key: equal plain bytes become equal blocks.
pub fn seal(key: &ConvergenceKey, plain: &[u8]) -> Result<SealedChunk, ChunkError> {
    let (codec, payload) = payload_of(plain)?;
    let mut hasher = blake3::Hasher::new_keyed(key.as_bytes());
    hasher.update(&[SUITE, codec.to_byte()]);
    hasher.update(&payload);
    finish(ChunkKey(hasher.finalize().into()), codec, payload, plain.len())
}

/// Seals under a key of its own: for folders that must not show even to an insider that two chunks are equal.
pub fn seal_unlinkable(rng: &dyn Rng, plain: &[u8]) -> Result<SealedChunk, ChunkError> {
    let (codec, payload) = payload_of(plain)?;
    finish(ChunkKey(random(rng)?), codec, payload, plain.len())
}

fn finish(
    key: ChunkKey,
    codec: Codec,
    mut payload: Vec<u8>,
    plain_len: usize,
) -> Result<SealedChunk, ChunkError> {
    aead::seal_once(&key.0, &mut payload);
    // `payload_of` has bounded the length by PLAIN_BYTES_MAX.
    Ok(SealedChunk { block: Block::raw(payload)?, key, codec, plain_len: plain_len as u32 })
}

fn payload_of(plain: &[u8]) -> Result<(Codec, Vec<u8>), ChunkError> {
    if plain.len() > PLAIN_BYTES_MAX {
        return Err(ChunkError::TooLarge(plain.len()));
    }
    let enough = plain.len() - (plain.len() >> GAIN_SHIFT);
    let mut packed = Vec::with_capacity(plain.len() + TAG_BYTES);
    if plain.len() >= 64 {
        // The buffer offers only what would be a gain, so that zstd gives up as soon as there is none.
        packed.resize(enough, 0);
        if let Some(len) = compress_into(plain, &mut packed)? {
            packed.truncate(len);
            return Ok((Codec::Zstd, packed));
        }
        packed.clear();
    }
    packed.extend_from_slice(plain);
    Ok((Codec::Plain, packed))
}

/// The compressed length, or nothing when it does not fit the buffer.
fn compress_into(plain: &[u8], buffer: &mut [u8]) -> Result<Option<usize>, ChunkError> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(ChunkError::Compression)?),
        };
        // An error here is "destination too small" and means: no gain.
        Ok(compressor.compress_to_buffer(plain, buffer).ok())
    })
}

/// Opens a leaf, in the block's own memory where nobody else holds it. `plain_len` and `codec` come from the row; anything else than exactly
/// that length is an error.
pub fn open(block: Block, key: &ChunkKey, codec: Codec, plain_len: u32) -> Result<Vec<u8>, ChunkError> {
    let expected = plain_len as usize;
    if expected > PLAIN_BYTES_MAX {
        return Err(ChunkError::TooLarge(expected));
    }
    let mut payload = Vec::from(block.into_bytes());
    aead::open_once(&key.0, &mut payload).map_err(|_| ChunkError::WrongKey)?;
    let bad = |why: String| ChunkError::BadPayload { expected: plain_len, why };
    let plain = match codec {
        Codec::Plain => payload,
        Codec::Zstd => DECOMPRESSOR.with_borrow_mut(|slot| {
            let decompressor = match slot {
                Some(decompressor) => decompressor,
                None => slot.insert(zstd::bulk::Decompressor::new().map_err(|e| bad(e.to_string()))?),
            };
            // The capacity bounds what a hostile frame can expand to.
            decompressor.decompress(&payload, expected).map_err(|error| bad(error.to_string()))
        })?,
    };
    if plain.len() != expected {
        return Err(bad(format!("it gives {}", plain.len())));
    }
    Ok(plain)
}

/// The local index's key from plain bytes to a block that exists already: a hash that only this drive can compute.
pub fn dedup_tag(key: &DedupKey, plain: &[u8]) -> [u8; 32] {
    blake3::keyed_hash(key.as_bytes(), plain).into()
}

// A sealed chunk always fits a block.
const _: () = assert!(PLAIN_BYTES_MAX + TAG_BYTES <= BLOCK_BYTES_MAX);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::rng::SeededRng;

    fn key() -> ConvergenceKey {
        ConvergenceKey::from_bytes([3; 32])
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        SeededRng::new(1).fill(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn round_trips_with_and_without_compression() {
        let text = b"the quick brown fox ".repeat(500);
        for (plain, codec) in [
            (Vec::new(), Codec::Plain),
            (b"x".to_vec(), Codec::Plain),
            (noise(100_000), Codec::Plain),
            (text, Codec::Zstd),
            (vec![0; PLAIN_BYTES_MAX], Codec::Zstd),
        ] {
            let sealed = seal(&key(), &plain).unwrap();
            assert_eq!(sealed.codec, codec, "{} bytes", plain.len());
            assert_eq!(
                open(sealed.block.clone(), &sealed.key, sealed.codec, sealed.plain_len).unwrap(),
                plain
            );
            assert_eq!(seal(&key(), &plain).unwrap().block, sealed.block, "convergent");
        }
        assert!(matches!(seal(&key(), &vec![0; PLAIN_BYTES_MAX + 1]), Err(ChunkError::TooLarge(_))));
    }

    #[test]
    fn nobody_without_the_key_meets_the_same_block() {
        let plain = noise(1000);
        let ours = seal(&key(), &plain).unwrap();
        let theirs = seal(&ConvergenceKey::from_bytes([4; 32]), &plain).unwrap();
        assert_ne!(ours.block.cid(), theirs.block.cid());
        assert!(matches!(
            open(ours.block.clone(), &theirs.key, Codec::Plain, 1000),
            Err(ChunkError::WrongKey)
        ));
        let rng = SeededRng::new(2);
        let (a, b) = (seal_unlinkable(&rng, &plain).unwrap(), seal_unlinkable(&rng, &plain).unwrap());
        assert_ne!(a.block.cid(), b.block.cid());
        assert_eq!(open(b.block.clone(), &b.key, b.codec, b.plain_len).unwrap(), plain);
    }

    #[test]
    fn rows_that_lie_are_errors() {
        let plain = vec![7; 5000];
        let sealed = seal(&key(), &plain).unwrap();
        assert_eq!(sealed.codec, Codec::Zstd);
        for (codec, len) in
            [(Codec::Plain, 5000), (Codec::Zstd, 4999), (Codec::Zstd, 5001), (Codec::Zstd, u32::MAX)]
        {
            assert!(open(sealed.block.clone(), &sealed.key, codec, len).is_err());
        }
        let stored = seal(&key(), &noise(500)).unwrap();
        assert!(
            open(stored.block.clone(), &stored.key, Codec::Zstd, 500).is_err(),
            "a payload that is no frame"
        );
        assert!(open(Block::raw(&b"short"[..]).unwrap(), &sealed.key, Codec::Plain, 5).is_err());
    }

    #[test]
    fn golden() {
        let sealed = seal(&key(), b"holdfast").unwrap();
        let tag = dedup_tag(&DedupKey::from_bytes([5; 32]), b"holdfast");
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let packed = seal(&key(), &b"holdfast".repeat(20)).unwrap();
        let found = [
            sealed.block.cid().to_string(),
            hex(sealed.block.bytes()),
            hex(sealed.key.as_bytes()),
            hex(&tag),
            hex(&open(packed.block.clone(), &packed.key, Codec::Zstd, 160).unwrap()),
        ];
        crate::golden::check("chunk", &found.join("\n"));
    }
}
