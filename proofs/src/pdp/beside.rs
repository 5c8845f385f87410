//! Bytes that were read beside a challenge, held against the leaves that its proof shows.
//!
//! A proof that was accepted shows leaves of exactly the named piece. Whoever got payload bytes by another way (a read before the
//! challenge was sent) learns without a copy of its own whether they are the piece's, for as many leaves as lie in both.

use super::proof::{PossessionProof, ProofError};
use super::verify::{Verdict, verify};
use crate::commp::{leaf_span, leaves_of};

/// What the comparison of a read with a proof came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beside {
    /// Leaves that the proof shows and the read covers.
    pub leaves: usize,
    /// Those of them that the read has otherwise.
    pub other: usize,
}

/// Compares payload bytes that begin at `offset` with the leaves that `proof` shows. A leaf is compared where the read covers all
/// 127 bytes (or the payload's last) that it and its three neighbours are made of.
///
/// # Errors
/// Those of `verify`, if the proof is not the one that the verdict is about.
pub fn beside(
    verdict: &Verdict,
    proof: &PossessionProof,
    offset: u64,
    bytes: &[u8],
) -> Result<Beside, ProofError> {
    let (piece, challenge) = (verdict.piece(), verdict.challenge());
    verify(piece, challenge, proof)?;
    let end = offset.saturating_add(bytes.len() as u64);
    let mut found = Beside { leaves: 0, other: 0 };
    for (position, leaf) in challenge.positions(piece)?.into_iter().zip(proof.leaves()) {
        let (from, to) = leaf_span(piece.payload_len(), position, 1);
        if from < offset || to > end {
            continue;
        }
        let within = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
        let quad = bytes.get(within(from)..within(to)).unwrap_or_default();
        let read = usize::try_from(position % 4).ok().and_then(|n| leaves_of(quad).get(n).copied());
        found.leaves += 1;
        found.other += usize::from(read.as_ref() != Some(leaf));
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
