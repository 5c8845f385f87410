//! Strict canonical DAG-CBOR for structures at rest and on the wire.
//!
//! Every structure begins with its version and suite. A decoder first bounds the length, then decodes, then insists that
//! encoding again gives the same bytes: one value has one encoding, so a digest or a signature covers exactly one value.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a structure was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FormatError {
    /// More bytes than the structure may have.
    #[error("{what}: {len} bytes exceed the limit of {max}")]
    TooLarge {
        /// Which structure.
        what: &'static str,
        /// Its length.
        len: usize,
        /// Its limit.
        max: usize,
    },
    /// Not the canonical encoding of such a structure.
    #[error("{what}: malformed: {why}")]
    Malformed {
        /// Which structure.
        what: &'static str,
        /// In what way.
        why: String,
    },
    /// Made by a newer version of this program: update it.
    #[error("{what}: version {found} is newer than this program, which knows {known}; update Holdfast")]
    Newer {
        /// Which structure.
        what: &'static str,
        /// Its version or suite.
        found: u64,
        /// The newest known one.
        known: u64,
    },
    /// A signature or a tag does not fit.
    #[error("{what}: not authentic")]
    NotAuthentic {
        /// Which structure.
        what: &'static str,
    },
}

impl FormatError {
    /// A malformed structure.
    pub fn malformed(what: &'static str, why: impl std::fmt::Display) -> Self {
        Self::Malformed { what, why: why.to_string() }
    }
}

/// Encodes a value.
pub fn encode<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, FormatError> {
    serde_ipld_dagcbor::to_vec(value).map_err(|error| FormatError::malformed(what, error))
}

/// Decodes a canonical value of at most `max` bytes.
pub fn decode<T: Serialize + DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
    max: usize,
) -> Result<T, FormatError> {
    if bytes.len() > max {
        return Err(FormatError::TooLarge { what, len: bytes.len(), max });
    }
    let value: T =
        serde_ipld_dagcbor::from_slice(bytes).map_err(|error| FormatError::malformed(what, error))?;
    if encode(what, &value)? != bytes {
        return Err(FormatError::malformed(what, "not canonical"));
    }
    Ok(value)
}

/// Refuses a version or suite that this program does not know.
pub fn check_version(what: &'static str, found: u64, known: u64) -> Result<(), FormatError> {
    match found {
        0 => Err(FormatError::malformed(what, "version 0")),
        found if found > known => Err(FormatError::Newer { what, found, known }),
        _ => Ok(()),
    }
}

/// Version and suite of a structure, read before the rest is understood.
#[derive(serde::Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionAndSuite {
    /// The structure's version.
    pub version: u64,
    /// The structure's suite.
    pub suite: u64,
}

/// Reads the `version` and `suite` fields of a map and skips all others.
pub fn peek_version(what: &'static str, bytes: &[u8]) -> Result<VersionAndSuite, FormatError> {
    serde_ipld_dagcbor::from_slice(bytes).map_err(|error| FormatError::malformed(what, error))
}
