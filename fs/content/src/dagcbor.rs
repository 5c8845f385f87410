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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        version: u64,
        suite: u64,
        #[serde(with = "serde_bytes")]
        bytes: [u8; 4],
        list: Vec<u64>,
        maybe: Option<u64>,
    }

    #[test]
    fn one_value_has_one_encoding() {
        let sample = Sample { version: 1, suite: 1, bytes: [1, 2, 3, 4], list: vec![1, 300], maybe: None };
        let bytes = encode("sample", &sample).unwrap();
        assert_eq!(decode::<Sample>("sample", &bytes, 100).unwrap(), sample);
        assert!(matches!(decode::<Sample>("sample", &bytes, 10), Err(FormatError::TooLarge { .. })));
        assert_eq!(peek_version("sample", &bytes).unwrap(), VersionAndSuite { version: 1, suite: 1 });
        // The number 1 in two bytes, a trailing byte, a missing one.
        let long = bytes
            .iter()
            .flat_map(|&b| if b == 0x01 { vec![0x18, 0x01] } else { vec![b] })
            .collect::<Vec<_>>();
        assert!(decode::<Sample>("sample", &long, 100).is_err());
        let trailing = [bytes.as_slice(), &[0]].concat();
        assert!(decode::<Sample>("sample", &trailing, 100).is_err());
        assert!(decode::<Sample>("sample", &bytes[..bytes.len() - 1], 100).is_err());
    }

    /// Skipping what is unknown must not exhaust the stack, nor may a length that cannot be true exhaust memory.
    #[test]
    fn depth_and_lengths_are_bounded() {
        for opener in [0x81u8, 0xa1, 0xd8] {
            let mut nested = vec![0xa1, 0x61, b'a'];
            nested.extend(std::iter::repeat_n(opener, 1 << 20));
            assert!(peek_version("nested", &nested).is_err());
            assert!(decode::<Sample>("nested", &nested, usize::MAX).is_err());
        }
        for huge in [0x9b, 0xbb, 0x5b, 0x7b] {
            let mut claim = vec![0xa1, 0x61, b'a', huge];
            claim.extend_from_slice(&[0x7f; 8]);
            assert!(peek_version("huge", &claim).is_err());
            let mut list = vec![0xa1, 0x64, b'l', b'i', b's', b't', huge];
            list.extend_from_slice(&[0x7f; 8]);
            assert!(decode::<Sample>("huge", &list, 100).is_err());
        }
    }

    #[test]
    fn newer_versions_say_so() {
        assert!(check_version("sample", 1, 1).is_ok());
        assert!(check_version("sample", 0, 1).is_err());
        let message = check_version("sample", 2, 1).unwrap_err().to_string();
        assert!(message.contains("newer") && message.contains("update"), "{message}");
    }

    proptest! {
        #[test]
        fn decoding_is_total(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(sample) = decode::<Sample>("sample", &bytes, 1000) {
                prop_assert_eq!(encode("sample", &sample).unwrap(), bytes.clone());
            }
            let _ = peek_version("sample", &bytes);
        }
    }
}
