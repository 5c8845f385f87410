//! What a drive knows of a public piece: of which publication it is.
//!
//! ```text
//! canonical DAG-CBOR { version 1, suite 1, root CID, name text, profile text, size, at, number, count }
//! ```
//!
//! Stands in the placement entry that declares the piece, so that the words alone bring back what was published. A publication
//! is whole when all `count` pieces of its root and time are there. Nothing of it reaches a provider.

use crate::dagcbor::{self, FormatError};
use cid::Cid;
use serde::{Deserialize, Serialize};

const WHAT: &str = "public piece";
const VERSION: u64 = 1;
const SUITE: u64 = 1;
/// The longest name.
pub const NAME_BYTES_MAX: usize = 1024;
/// The longest encoding.
pub const PUBLIC_PIECE_BYTES_MAX: usize = 2048;
/// Pieces of one publication, at most: 1 TiB in pieces of the usual size.
pub const PIECES_MAX: u32 = 16_384;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicPiece {
    version: u64,
    suite: u64,
    /// The root, as its profile writes it.
    pub root: Cid,
    /// What the owner calls it: the path that was published.
    pub name: String,
    /// The profile that it was added under.
    pub profile: String,
    /// Bytes of its files.
    pub size: u64,
    /// When it was published, unix seconds.
    pub at: u64,
    /// This piece's place, from 0.
    pub number: u32,
    /// How many there are.
    pub count: u32,
}

impl PublicPiece {
    /// Of this publication the piece of this number.
    pub fn new(
        root: Cid,
        name: String,
        profile: String,
        size: u64,
        at: u64,
        (number, count): (u32, u32),
    ) -> Result<Self, FormatError> {
        let piece = Self { version: VERSION, suite: SUITE, root, name, profile, size, at, number, count };
        piece.check()?;
        Ok(piece)
    }

    fn check(&self) -> Result<(), FormatError> {
        if self.name.len() > NAME_BYTES_MAX || self.profile.len() > 64 {
            return Err(FormatError::malformed(WHAT, "a name that is too long"));
        }
        if self.number >= self.count || self.count > PIECES_MAX {
            return Err(FormatError::malformed(WHAT, "its number"));
        }
        crate::block::as_v1(&self.root).map_err(|error| FormatError::malformed(WHAT, error))?;
        Ok(())
    }

    /// For the placement entry.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        dagcbor::encode(WHAT, self)
    }

    /// From one.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() > PUBLIC_PIECE_BYTES_MAX {
            return Err(FormatError::TooLarge { what: WHAT, len: bytes.len(), max: PUBLIC_PIECE_BYTES_MAX });
        }
        let found = dagcbor::peek_version(WHAT, bytes)?;
        dagcbor::check_version(WHAT, found.version, VERSION)?;
        dagcbor::check_version(WHAT, found.suite, SUITE)?;
        let piece: Self = dagcbor::decode(WHAT, bytes, PUBLIC_PIECE_BYTES_MAX)?;
        piece.check()?;
        Ok(piece)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::block::{cid_of, written_as};

    pub(crate) fn sample() -> PublicPiece {
        let root = written_as(&cid_of(0x70, b"root"), cid::Version::V0);
        let name = "/home/ann/Holdfast/Site".to_owned();
        PublicPiece::new(root, name, "unixfs-v0-2015".into(), 7, 1_800_000_000, (0, 2)).unwrap()
    }

    #[test]
    fn comes_back_and_only_as_it_is() {
        let piece = sample();
        let bytes = piece.encode().unwrap();
        assert_eq!(PublicPiece::decode(&bytes).unwrap(), piece);
        for at in 0..bytes.len() {
            assert!(PublicPiece::decode(&bytes[..at]).is_err());
        }
        let refused = [
            PublicPiece { name: "x".repeat(NAME_BYTES_MAX + 1), ..piece.clone() },
            PublicPiece { number: 2, ..piece.clone() },
            PublicPiece { count: PIECES_MAX + 1, ..piece.clone() },
            PublicPiece { root: cid::Cid::new_v1(0x71, *piece.root.hash()), ..piece.clone() },
            PublicPiece { suite: 0, ..piece.clone() },
        ];
        for piece in refused {
            assert!(PublicPiece::decode(&piece.encode().unwrap()).is_err(), "{piece:?}");
        }
        let newer = PublicPiece { version: 2, ..piece };
        let newer = PublicPiece::decode(&newer.encode().unwrap());
        assert!(matches!(newer, Err(FormatError::Newer { found: 2, .. })));
    }
}
