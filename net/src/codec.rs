//! Canonical DAG-CBOR, strictly.
//!
//! What decodes must encode to exactly the same bytes: a signature then covers one meaning, and no two encodings of
//! one value exist. Every decode has a size limit, given by the caller.

use serde::{Serialize, de::DeserializeOwned};

/// Why bytes were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Longer than the limit for this kind of message.
    #[error("{len} bytes, at most {max} are allowed")]
    TooLong {
        /// Bytes given.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// Not DAG-CBOR of this shape.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Decodable, but not the one canonical encoding.
    #[error("not canonical DAG-CBOR")]
    NotCanonical,
    /// Written by a newer version.
    #[error("format version {found} is newer than {known}: update this program")]
    Newer {
        /// Found in the bytes.
        found: u8,
        /// The newest that this program reads.
        known: u8,
    },
    /// A suite (set of algorithms) that this program does not know.
    #[error("unknown suite {0}")]
    UnknownSuite(u8),
    /// A signature does not verify.
    #[error("bad signature on {0}")]
    BadSignature(&'static str),
    /// Fields contradict each other.
    #[error("inconsistent: {0}")]
    Inconsistent(&'static str),
}

/// Encodes; fails only for values that DAG-CBOR cannot hold, which none of this crate's types are.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_ipld_dagcbor::to_vec(value).expect("this crate's types are plain data")
}

/// Decodes what [`encode`] wrote, and nothing else.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, CodecError> {
    if bytes.len() > max {
        return Err(CodecError::TooLong { len: bytes.len(), max });
    }
    let value: T =
        serde_ipld_dagcbor::from_slice(bytes).map_err(|e| CodecError::Malformed(shorten(&e.to_string())))?;
    if encode(&value) != bytes {
        return Err(CodecError::NotCanonical);
    }
    Ok(value)
}

/// Refuses what is newer than `known`.
pub(crate) fn check_version(found: u8, known: u8) -> Result<(), CodecError> {
    match found {
        0 => Err(CodecError::Inconsistent("version 0")),
        v if v > known => Err(CodecError::Newer { found: v, known }),
        _ => Ok(()),
    }
}

/// At most 200 characters of a text that a peer had a hand in.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
