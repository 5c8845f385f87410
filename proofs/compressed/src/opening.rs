//! Openings in both trees as a file that anybody can check offline: which slot, which draws, and the leaves.
//!
//! ```text
//! DAG-CBOR ["HFOPEN", 1, piece CID, root [32], seed [32], count, binding]: name, version, then what is claimed
//! ```
//!
//! It needs no parameters, so its maker cannot forge it; what it cannot show is that the seed was fresh, and that the root
//! is the one that was agreed on.

use holdfast_proofs::{Challenge, PieceCid};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use thiserror::Error;

use crate::binding::{BINDING_BYTES_MAX, Binding, BindingError, BindingProof, check_binding};
use crate::tree::{SlotCommitment, TreeError, TreeRoot};

const NAME: &str = "HFOPEN";
const VERSION: u8 = 1;
/// The binding, and what is about it.
pub const OPENING_BYTES_MAX: usize = BINDING_BYTES_MAX + 256;

/// Why a file of openings is refused.
#[derive(Debug, Error)]
pub enum OpeningError {
    #[error("openings of {0} bytes are longer than any valid ones ({OPENING_BYTES_MAX})")]
    TooLong(usize),
    #[error("not a file of openings")]
    Malformed,
    #[error("openings of version {0}: newer than this program")]
    Newer(u8),
    #[error(transparent)]
    Slot(#[from] TreeError),
    #[error(transparent)]
    Binding(#[from] BindingError),
    #[error("the draws: {0}")]
    Challenge(#[from] holdfast_proofs::ProofError),
}

/// What was asked of a slot and what was opened; says nothing until `verify` has accepted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpeningFile {
    pub slot: SlotCommitment,
    pub challenge: Challenge,
    pub binding: BindingProof,
}

#[derive(Serialize, Deserialize)]
struct Wire(String, u8, ByteBuf, ByteArray<32>, ByteArray<32>, u16, ByteBuf);

impl OpeningFile {
    /// The file's bytes.
    ///
    /// # Errors
    /// None in practice: what is in memory always encodes.
    pub fn encode(&self) -> Result<Vec<u8>, OpeningError> {
        serde_ipld_dagcbor::to_vec(&Wire(
            NAME.to_owned(),
            VERSION,
            ByteBuf::from(self.slot.piece().to_bytes()),
            ByteArray::new(self.slot.root().to_bytes()),
            ByteArray::new(*self.challenge.seed()),
            self.challenge.count(),
            ByteBuf::from(self.binding.encode()?),
        ))
        .map_err(|_| OpeningError::Malformed)
    }

    /// Whether bytes begin as such a file does.
    #[must_use]
    pub fn is_one(bytes: &[u8]) -> bool {
        // An array of seven, and a text of six.
        bytes.strip_prefix(&[0x87, 0x66]).is_some_and(|rest| rest.starts_with(NAME.as_bytes()))
    }

    /// Reads a file from untrusted bytes; it has one spelling.
    ///
    /// # Errors
    /// Says which part is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, OpeningError> {
        if bytes.len() > OPENING_BYTES_MAX {
            return Err(OpeningError::TooLong(bytes.len()));
        }
        if !Self::is_one(bytes) {
            return Err(OpeningError::Malformed);
        }
        if let Some(version @ 2..=23) = bytes.get(2 + NAME.len()) {
            return Err(OpeningError::Newer(*version));
        }
        let Wire(_, version, piece, root, seed, count, binding) =
            serde_ipld_dagcbor::from_slice(bytes).map_err(|_| OpeningError::Malformed)?;
        let piece = PieceCid::from_bytes(&piece).map_err(|_| OpeningError::Malformed)?;
        let file = Self {
            slot: SlotCommitment::new(piece, TreeRoot::from_bytes(&root)?)?,
            challenge: Challenge::new(seed.into_array(), count)?,
            binding: BindingProof::decode(&binding)?,
        };
        if version != VERSION || file.encode()? != bytes {
            return Err(OpeningError::Malformed);
        }
        Ok(file)
    }

    /// Accepts only if the drawn leaves, all of them and no others, are in both trees of the slot.
    ///
    /// # Errors
    /// `Binding`.
    pub fn verify(&self) -> Result<Binding, OpeningError> {
        Ok(check_binding(&self.slot, &self.challenge, &self.binding)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::binding::open_binding;
    use crate::testing::{TestSlot, payload};
    use crate::tree::StoredLevel;

    fn file() -> OpeningFile {
        let slot = TestSlot::new(payload(5_000, 3), StoredLevel::DEFAULT);
        let challenge = Challenge::new([9; 32], 5).unwrap();
        let binding = open_binding(&slot.payload, &slot.cache(), &slot.tree(), &challenge).unwrap();
        OpeningFile { slot: slot.commitment, challenge, binding }
    }

    #[test]
    fn a_file_has_one_spelling_and_every_bit_of_it_counts() {
        let file = file();
        let bytes = file.encode().unwrap();
        assert!(OpeningFile::is_one(&bytes));
        assert_eq!(OpeningFile::decode(&bytes).unwrap(), file);
        let binding = file.verify().unwrap();
        assert_eq!((binding.openings(), binding.exhaustive()), (5, false));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let accepted = OpeningFile::decode(&bad).is_ok_and(|file| file.verify().is_ok());
            assert!(!accepted, "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(OpeningFile::decode(&bytes[..cut]).is_err(), "cut to {cut}");
        }
        assert!(OpeningFile::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
        let mut newer = bytes.clone();
        newer[8] = 2;
        assert!(matches!(OpeningFile::decode(&newer), Err(OpeningError::Newer(2))));
        let huge = vec![0x87; OPENING_BYTES_MAX + 1];
        assert!(matches!(OpeningFile::decode(&huge), Err(OpeningError::TooLong(_))));
    }

    #[test]
    fn another_slots_root_is_refused() {
        let other = TestSlot::new(payload(5_000, 4), StoredLevel::DEFAULT);
        let mut file = file();
        file.slot = SlotCommitment::new(*file.slot.piece(), *other.commitment.root()).unwrap();
        assert!(matches!(file.verify(), Err(OpeningError::Binding(BindingError::Root))));
    }
}
