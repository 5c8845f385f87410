//! What an audit asks: a fresh seed and a number of leaves; which leaves follows for everybody alike.
//!
//! ```text
//! position i = SHA-256(domain32 | seed | root | payload length u64 BE | i u32 BE), as a 256-bit
//!              big-endian number, modulo the number of leaves that hold payload
//! ```
//!
//! Draws are independent (with replacement), so a keeper of a fraction f passes c of them with
//! probability f^c. Where a piece has no more leaves than draws, every leaf is asked instead.
//! The modulo's bias is below 2^-192.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use sha2::{Digest, Sha256};

use super::proof::ProofError;
use crate::commp::PieceCid;

/// Leaves asked where nothing else is said: half of the data missing is noticed with 1 - 2^-24 at the
/// first audit, a tenth missing with 92 %; a proof for 32 GiB stays under 25 KiB (SOUNDNESS.md).
pub const DEFAULT_CHALLENGES: u16 = 24;
/// More than this adds bytes, not safety: audits repeat.
pub const CHALLENGES_MAX: u16 = 512;

const SEED_DOMAIN: &[u8] = b"holdfast/pdp/seed/v1";
const LEAF_DOMAIN: [u8; 32] = *b"holdfast/pdp/leaf/v1\0\0\0\0\0\0\0\0\0\0\0\0";

/// What a seed is bound to. All of it is public; only `nonce` (or the beacon behind it) is fresh, and
/// must be unpredictable to the prover until it is asked.
#[derive(Debug, Clone, Copy)]
pub struct SeedInputs<'a> {
    /// 32 unpredictable bytes, used once: the auditor's own, or a beacon's value of `epoch`.
    pub nonce: [u8; 32],
    /// Who asks: the bytes of a peer id.
    pub auditor: &'a [u8],
    /// Who is asked: the bytes of a peer id.
    pub prover: &'a [u8],
    /// The deal that this is about.
    pub deal: &'a [u8],
    /// Number of the audit within the deal.
    pub epoch: u64,
}

/// A question about one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Challenge {
    seed: [u8; 32],
    count: u16,
}

/// `[seed, count]`
#[derive(Serialize, Deserialize)]
struct Wire(ByteArray<32>, u16);

impl TryFrom<Wire> for Challenge {
    type Error = ProofError;

    fn try_from(Wire(seed, count): Wire) -> Result<Self, ProofError> {
        Self::new(seed.into_array(), count)
    }
}

impl From<Challenge> for Wire {
    fn from(challenge: Challenge) -> Self {
        Self(ByteArray::new(challenge.seed), challenge.count)
    }
}

impl Challenge {
    /// A challenge of `count` leaves.
    ///
    /// # Errors
    /// `Count` where it is zero or above `CHALLENGES_MAX`.
    pub fn new(seed: [u8; 32], count: u16) -> Result<Self, ProofError> {
        if count == 0 || count > CHALLENGES_MAX {
            return Err(ProofError::Count(count));
        }
        Ok(Self { seed, count })
    }

    /// The seed that binds an audit to its nonce, both parties, the deal and the epoch.
    #[must_use]
    pub fn seed_from(inputs: &SeedInputs<'_>) -> [u8; 32] {
        let mut hash = Sha256::new();
        for field in [SEED_DOMAIN, &inputs.nonce, inputs.auditor, inputs.prover, inputs.deal] {
            // Lengths first, so that no two different inputs are the same string of bytes.
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        hash.update(inputs.epoch.to_be_bytes());
        hash.finalize().into()
    }

    #[must_use]
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    #[must_use]
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Whether it asks every leaf of this piece. Then nothing is drawn: neither the seed nor the exact count matters, and
    /// an answer to one such challenge is one to all of them.
    #[must_use]
    pub fn is_for_all_of(&self, piece: &PieceCid) -> bool {
        piece.leaf_count() <= u64::from(self.count)
    }

    /// The leaves that are asked of this piece: ascending, each once.
    ///
    /// # Errors
    /// `EmptyPiece`: nothing can be asked of no bytes.
    pub fn positions(&self, piece: &PieceCid) -> Result<Vec<u64>, ProofError> {
        let leaves = piece.leaf_count();
        if leaves == 0 {
            return Err(ProofError::EmptyPiece);
        }
        if self.is_for_all_of(piece) {
            return Ok((0..leaves).collect());
        }
        let prefix = Sha256::new()
            .chain_update(LEAF_DOMAIN)
            .chain_update(self.seed)
            .chain_update(piece.root())
            .chain_update(piece.payload_len().to_be_bytes());
        Ok(self.draw(&prefix, leaves))
    }

    /// `count` numbers below `below`, drawn by a hash that already has its prefix: ascending, each once.
    pub(super) fn draw(&self, prefix: &Sha256, below: u64) -> Vec<u64> {
        let mut numbers: Vec<u64> = (0..u32::from(self.count))
            .map(|i| modulo(&prefix.clone().chain_update(i.to_be_bytes()).finalize().into(), below))
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

/// A big-endian 256-bit number modulo `divisor`, which is not zero.
fn modulo(number: &[u8; 32], divisor: u64) -> u64 {
    let divisor = u128::from(divisor);
    let rest = number
        .as_chunks::<8>()
        .0
        .iter()
        .fold(0_u128, |rest, limb| ((rest << 64) | u128::from(u64::from_be_bytes(*limb))) % divisor);
    // A remainder by a u64 is a u64.
    rest as u64
}

#[cfg(test)]
mod tests;
