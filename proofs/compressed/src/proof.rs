//! The bytes of a compressed proof.
//!
//! ```text
//! version 1 | suite 1 | A [48] | B [96] | C [48]       Groth16 over BLS12-381, compressed points
//! ```
//!
//! The 192 bytes are the proof; shape, set and seed are what it is verified against and are not in it.
//! A proof has one spelling, but a statement has many proofs: anybody can turn one into another
//! (Groth16 is re-randomisable), so nothing may take a proof's bytes for a name.

use bellperson::groth16::Proof;
use blstrs::{Bls12, G1Affine, G2Affine};
use group::prime::PrimeCurveAffine;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_bytes::ByteBuf;
use thiserror::Error;

const VERSION: u8 = 1;
const SUITE: u8 = 1;
/// Exact bytes of an encoded proof.
pub const PROOF_LEN: usize = 2 + 48 + 96 + 48;

/// Why bytes are no proof.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    #[error("a compressed proof has {PROOF_LEN} bytes, not {0}")]
    Length(usize),
    #[error("a compressed proof of version {version}, suite {suite}: newer than this program")]
    Newer { version: u8, suite: u8 },
    #[error("the proof's point {0} is not one of the group, or is its neutral element")]
    Point(char),
}

/// An answer to a compressed audit; says nothing until `verify` has accepted it.
#[derive(Debug, Clone, PartialEq)]
pub struct CompressedProof(pub(crate) Proof<Bls12>);

impl CompressedProof {
    #[must_use]
    pub fn encode(&self) -> [u8; PROOF_LEN] {
        let mut out = [0; PROOF_LEN];
        out[..2].copy_from_slice(&[VERSION, SUITE]);
        out[2..50].copy_from_slice(&self.0.a.to_compressed());
        out[50..146].copy_from_slice(&self.0.b.to_compressed());
        out[146..].copy_from_slice(&self.0.c.to_compressed());
        out
    }

    /// Reads a proof from untrusted bytes; each point is checked to lie in its group.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let bytes: &[u8; PROOF_LEN] = bytes.try_into().map_err(|_| DecodeError::Length(bytes.len()))?;
        let [version, suite, points @ ..] = bytes;
        if (*version, *suite) != (VERSION, SUITE) {
            return Err(DecodeError::Newer { version: *version, suite: *suite });
        }
        let (a, rest) = points.split_first_chunk::<48>().ok_or(DecodeError::Point('A'))?;
        let (b, rest) = rest.split_first_chunk::<96>().ok_or(DecodeError::Point('B'))?;
        let c = rest.first_chunk::<48>().ok_or(DecodeError::Point('C'))?;
        let a = G1Affine::from_compressed(a).into_option().filter(|a| !bool::from(a.is_identity()));
        let b = G2Affine::from_compressed(b).into_option().filter(|b| !bool::from(b.is_identity()));
        let c = G1Affine::from_compressed(c).into_option().filter(|c| !bool::from(c.is_identity()));
        let proof = Self(Proof {
            a: a.ok_or(DecodeError::Point('A'))?,
            b: b.ok_or(DecodeError::Point('B'))?,
            c: c.ok_or(DecodeError::Point('C'))?,
        });
        // The library reads what it writes; whatever else it would read is not a spelling of ours.
        if proof.encode() != *bytes {
            return Err(DecodeError::Point('?'));
        }
        Ok(proof)
    }
}

/// Inside another structure a proof is one byte string: its own encoding.
impl Serialize for CompressedProof {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.encode())
    }
}

impl<'de> Deserialize<'de> for CompressedProof {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = ByteBuf::deserialize(deserializer)?;
        Self::decode(&bytes).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
