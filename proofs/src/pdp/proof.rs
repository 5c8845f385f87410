//! The bytes of a possession proof.
//!
//! ```text
//! DAG-CBOR [1, leaves, siblings]: version, then two byte strings of 32-byte nodes
//! leaves    the challenged leaves, by position, each once
//! siblings  the nodes that they do not imply, from the leaves upward, left to right
//! ```
//!
//! A proof has one spelling: what does not encode again to the same bytes is refused. How many nodes
//! there are is fixed by piece and challenge, so `verify` refuses one too few and one too many.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_bytes::{ByteBuf, Bytes};
use thiserror::Error;

use super::challenge::CHALLENGES_MAX;
use super::set::SET_PIECES_MAX;
use crate::commp::{HEIGHT_MAX, Node};

const VERSION: u8 = 1;

/// No proof that can be valid is longer: every challenge with a whole path of its own.
pub const PROOF_BYTES_MAX: usize = CHALLENGES_MAX as usize * (HEIGHT_MAX as usize + 1) * 32 + 32;

/// Why a challenge or a proof is refused. None of these is passing: the same bytes fail again.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProofError {
    #[error("a challenge asks for 1 to {CHALLENGES_MAX} leaves, not {0}")]
    Count(u16),
    #[error("a piece of no bytes cannot be challenged")]
    EmptyPiece,
    #[error("a set has at most {SET_PIECES_MAX} pieces, and leaves that a 64-bit number counts")]
    SetTooLarge,
    #[error("a proof of {0} bytes is longer than any valid one ({PROOF_BYTES_MAX})")]
    TooLong(usize),
    #[error("not a possession proof: {0}")]
    Malformed(String),
    #[error("a possession proof of version {0}: newer than this program")]
    Newer(u8),
    #[error("{expected} leaves are challenged, the proof has {found}")]
    LeafNumber { expected: usize, found: usize },
    #[error("{expected} siblings are needed, the proof has {found}")]
    SiblingNumber { expected: usize, found: usize },
    #[error("leaf {0} has bits above 254")]
    LeafBits(u64),
    #[error("the proof leads to another root than the piece's")]
    Root,
}

/// An answer to a challenge; says nothing until `verify` has accepted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PossessionProof {
    pub(super) leaves: Vec<Node>,
    pub(super) siblings: Vec<Node>,
}

#[derive(Serialize)]
struct WireOut<'a>(u8, &'a Bytes, &'a Bytes);

#[derive(Deserialize)]
struct WireIn(u8, ByteBuf, ByteBuf);

impl PossessionProof {
    /// The proof's bytes, as they go over the wire.
    ///
    /// # Errors
    /// None in practice: byte strings in memory always encode.
    pub fn encode(&self) -> Result<Vec<u8>, ProofError> {
        let leaves = Bytes::new(self.leaves.as_flattened());
        let siblings = Bytes::new(self.siblings.as_flattened());
        serde_ipld_dagcbor::to_vec(&WireOut(VERSION, leaves, siblings))
            .map_err(|e| ProofError::Malformed(e.to_string()))
    }

    /// Reads a proof from untrusted bytes.
    ///
    /// # Errors
    /// `TooLong` before anything is read, `Newer`, or `Malformed`.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProofError> {
        if bytes.len() > PROOF_BYTES_MAX {
            return Err(ProofError::TooLong(bytes.len()));
        }
        // 0x83: an array of three; small numbers stand for themselves, so the version is visible
        // before a later layout is misread.
        if let [0x83, version @ 2..=23, ..] = bytes {
            return Err(ProofError::Newer(*version));
        }
        let malformed = |text: &str| ProofError::Malformed(text.into());
        let WireIn(version, leaves, siblings) =
            serde_ipld_dagcbor::from_slice(bytes).map_err(|e| ProofError::Malformed(e.to_string()))?;
        if version != VERSION {
            return Err(malformed("unknown version"));
        }
        let nodes = |bytes: &[u8]| match bytes.as_chunks::<32>() {
            (nodes, []) => Ok(nodes.to_vec()),
            _ => Err(malformed("nodes are 32 bytes")),
        };
        let proof = Self { leaves: nodes(&leaves)?, siblings: nodes(&siblings)? };
        if proof.encode()? != bytes {
            return Err(malformed("not in canonical form"));
        }
        Ok(proof)
    }

    /// The shown leaves, by position: what another tree over the same leaves can be held against.
    #[must_use]
    pub fn leaves(&self) -> &[Node] {
        &self.leaves
    }

    /// Nodes in the proof, leaves included: each is 32 bytes, and each sibling one hash to verify.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.leaves.len() + self.siblings.len()
    }
}

/// Inside another structure a proof is one byte string: its own encoding.
impl Serialize for PossessionProof {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.encode().map_err(ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for PossessionProof {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = ByteBuf::deserialize(deserializer)?;
        Self::decode(&bytes).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
