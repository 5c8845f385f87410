//! The v2 piece CID: how a piece is named, and the only place that knows its bytes.
//!
//! ```text
//! CIDv1 | raw 0x55 | multihash 0x1011 | digest length | uvarint padding | u8 height | root [32]
//! ```
//!
//! Promises: a `PieceCid` in memory is canonical, so equal pieces have equal bytes and the payload's
//! length is exact. Refuses: heights below 2 (127 payload bytes are the least that is hashed) and
//! above 57, a height larger than the payload needs, roots whose top two bits are set.

use std::fmt;
use std::str::FromStr;

use cid::Cid;
use cid::multihash::Multihash;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use thiserror::Error;

/// Multihash code of `fr32-sha2-256-trunc254-padbintree` (multicodec table).
pub const FR32_SHA256_TRUNC254_PADBINTREE: u64 = 0x1011;
/// Codec of a v2 piece CID: nothing is said about what the bytes mean.
pub const RAW: u64 = 0x55;
/// Four leaves: the least that fr32 expands (127 bytes to 128).
pub const HEIGHT_MIN: u8 = 2;
/// 2^57 leaves hold 127 * 2^55 bytes; FRC-0069 caps sizes below 2^63 (nine-byte varints).
pub const HEIGHT_MAX: u8 = 57;

const ROOT_LEN: usize = 32;
const QUAD_PAYLOAD: u64 = 127;

/// Why bytes are not a piece CID of ours.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PieceCidError {
    #[error("not a CID: {0}")]
    NotACid(String),
    #[error(
        "a piece CID is version 1, raw (0x55), multihash 0x1011; this one is {version}, {codec:#x}, {hash:#x}"
    )]
    WrongKind { version: u64, codec: u64, hash: u64 },
    #[error("the digest of a piece CID is a varint, a height and a 32-byte root; got {0} bytes that are not")]
    Digest(usize),
    #[error("height {0} is outside {HEIGHT_MIN} to {HEIGHT_MAX}")]
    Height(u8),
    #[error("padding {padding} does not fit height {height}: a smaller tree would hold the payload")]
    Padding { padding: u64, height: u8 },
    #[error("the root has bits above 254")]
    Root,
    #[error("a payload of {0} bytes is longer than any piece")]
    TooLong(u64),
}

/// Name of a piece: root of its tree, and the exact length of its payload.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PieceCid {
    padding: u64,
    height: u8,
    root: [u8; ROOT_LEN],
}

impl PieceCid {
    /// The name of a payload of this length whose tree has this root.
    ///
    /// # Errors
    /// `TooLong`, or `Root` where the top two bits are set.
    pub fn new(payload_len: u64, root: [u8; ROOT_LEN]) -> Result<Self, PieceCidError> {
        let height = height_for(payload_len).ok_or(PieceCidError::TooLong(payload_len))?;
        Self::from_parts(capacity(height) - payload_len, height, root)
    }

    /// The name of what a hasher hashed: no payload that fits a machine is longer than a piece, and
    /// every root that it makes is a truncated hash.
    pub(super) fn hashed(payload_len: u64, root: [u8; ROOT_LEN]) -> Self {
        let height = Self::height_of(payload_len);
        debug_assert!(root[31] & 0xc0 == 0 && payload_len <= capacity(height));
        Self { padding: capacity(height) - payload_len, height, root }
    }

    /// Height of the tree of a payload; `HEIGHT_MAX` for one that is longer than any piece.
    pub(crate) fn height_of(payload_len: u64) -> u8 {
        height_for(payload_len).unwrap_or(HEIGHT_MAX)
    }

    fn from_parts(padding: u64, height: u8, root: [u8; ROOT_LEN]) -> Result<Self, PieceCidError> {
        if !(HEIGHT_MIN..=HEIGHT_MAX).contains(&height) {
            return Err(PieceCidError::Height(height));
        }
        // A capacity of 127 * 2^n is even above the least height, so that half of it is exact.
        let padding_max = if height == HEIGHT_MIN { QUAD_PAYLOAD } else { capacity(height) / 2 - 1 };
        if padding > padding_max {
            return Err(PieceCidError::Padding { padding, height });
        }
        if root[31] & 0xc0 != 0 {
            return Err(PieceCidError::Root);
        }
        Ok(Self { padding, height, root })
    }

    /// Bytes of payload, without any padding.
    #[must_use]
    pub fn payload_len(&self) -> u64 {
        capacity(self.height) - self.padding
    }

    /// Bytes of zeros that complete the tree (never stored, never sent).
    #[must_use]
    pub fn padding(&self) -> u64 {
        self.padding
    }

    /// Levels above the leaves: 2^height leaves of 32 bytes.
    #[must_use]
    pub fn height(&self) -> u8 {
        self.height
    }

    /// Root of the tree; with the height it is all that Filecoin's own proofs know of a piece.
    #[must_use]
    pub fn root(&self) -> &[u8; ROOT_LEN] {
        &self.root
    }

    /// Leaves that hold at least one bit of payload: what challenges are drawn from.
    #[must_use]
    pub fn leaf_count(&self) -> u64 {
        super::fr32::leaf_count(self.payload_len())
    }

    /// Bytes of the padded piece as Filecoin counts it (a power of two).
    #[must_use]
    pub fn padded_len(&self) -> u64 {
        32_u64 << self.height
    }

    /// As a CID, for structures that link to it.
    ///
    /// # Errors
    /// None in practice: the digest (at most 42 bytes) fits the CID's 64.
    pub fn to_cid(&self) -> Result<Cid, PieceCidError> {
        let digest = self.digest();
        let hash = Multihash::<64>::wrap(FR32_SHA256_TRUNC254_PADBINTREE, &digest)
            .map_err(|_| PieceCidError::Digest(digest.len()))?;
        Ok(Cid::new_v1(RAW, hash))
    }

    /// The binary CID, as it stands in signed structures.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let digest = self.digest();
        let mut out = Vec::with_capacity(5 + digest.len());
        // Version, codec, the two-byte varint of 0x1011, then a length below 128: one byte each.
        out.extend_from_slice(&[0x01, 0x55, 0x91, 0x20, digest.len() as u8]);
        out.extend_from_slice(&digest);
        out
    }

    /// Reads exactly one binary CID; trailing bytes are refused.
    ///
    /// # Errors
    /// Says what is not canonical.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PieceCidError> {
        let mut rest = bytes;
        let cid = Cid::read_bytes(&mut rest).map_err(|e| PieceCidError::NotACid(e.to_string()))?;
        if !rest.is_empty() {
            return Err(PieceCidError::Digest(bytes.len()));
        }
        let piece = Self::try_from(&cid)?;
        // The CID crate accepts varints that are not minimal; a name has one spelling.
        if piece.to_bytes() != bytes {
            return Err(PieceCidError::NotACid("not in its shortest form".into()));
        }
        Ok(piece)
    }

    fn digest(&self) -> Vec<u8> {
        let mut buffer = unsigned_varint::encode::u64_buffer();
        let padding = unsigned_varint::encode::u64(self.padding, &mut buffer);
        [padding, &[self.height], &self.root].concat()
    }
}

/// Payload bytes that a tree of this height holds.
fn capacity(height: u8) -> u64 {
    debug_assert!((HEIGHT_MIN..=HEIGHT_MAX).contains(&height));
    QUAD_PAYLOAD << (height - HEIGHT_MIN)
}

fn height_for(payload_len: u64) -> Option<u8> {
    let quads = payload_len.div_ceil(QUAD_PAYLOAD).max(1).checked_next_power_of_two()?;
    let height = HEIGHT_MIN + u8::try_from(quads.trailing_zeros()).ok()?;
    (height <= HEIGHT_MAX).then_some(height)
}

impl TryFrom<&Cid> for PieceCid {
    type Error = PieceCidError;

    fn try_from(cid: &Cid) -> Result<Self, PieceCidError> {
        let kind = (u64::from(cid.version()), cid.codec(), cid.hash().code());
        if kind != (1, RAW, FR32_SHA256_TRUNC254_PADBINTREE) {
            let (version, codec, hash) = kind;
            return Err(PieceCidError::WrongKind { version, codec, hash });
        }
        let digest = cid.hash().digest();
        let bad = || PieceCidError::Digest(digest.len());
        let (padding, rest) = unsigned_varint::decode::u64(digest).map_err(|_| bad())?;
        let (height, root) = rest.split_first().ok_or_else(bad)?;
        let piece = Self::from_parts(padding, *height, root.try_into().map_err(|_| bad())?)?;
        // A varint of ten bytes may have had more bits than fit: a piece has one CID.
        if piece.to_cid()?.hash().digest() == digest { Ok(piece) } else { Err(bad()) }
    }
}

impl TryFrom<Cid> for PieceCid {
    type Error = PieceCidError;

    fn try_from(cid: Cid) -> Result<Self, PieceCidError> {
        Self::try_from(&cid)
    }
}

impl FromStr for PieceCid {
    type Err = PieceCidError;

    fn from_str(text: &str) -> Result<Self, PieceCidError> {
        let cid = Cid::from_str(text).map_err(|e| PieceCidError::NotACid(e.to_string()))?;
        Self::from_bytes(&cid.to_bytes())
    }
}

impl fmt::Display for PieceCid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_cid().map_err(|_| fmt::Error)?, f)
    }
}

impl fmt::Debug for PieceCid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A CID link in binary formats (DAG-CBOR tag 42), its text in readable ones.
impl Serialize for PieceCid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        self.to_cid().map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PieceCid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            return text.parse().map_err(de::Error::custom);
        }
        let cid = Cid::deserialize(deserializer)?;
        Self::try_from(&cid).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
