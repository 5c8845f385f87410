//! The verifier: SHA-256 and integers, no state, no allocation beyond the proof's own size.

use super::challenge::Challenge;
use super::plan::{Sibling, sibling};
use super::proof::{PossessionProof, ProofError};
use crate::commp::{Node, PieceCid, hash_pair, zero_node};

/// That a proof was accepted. Only `verify` makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    piece: PieceCid,
    challenge: Challenge,
    leaves_checked: usize,
}

impl Verdict {
    /// The piece whose possession was shown.
    #[must_use]
    pub fn piece(&self) -> &PieceCid {
        &self.piece
    }

    /// The question that was answered.
    #[must_use]
    pub fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// Distinct leaves that were shown.
    #[must_use]
    pub fn leaves_checked(&self) -> usize {
        self.leaves_checked
    }

    /// Whether the piece was asked whole, so that seed and count were not used ([`Challenge::is_for_all_of`]).
    #[must_use]
    pub fn asked_whole(&self) -> bool {
        self.challenge.is_for_all_of(&self.piece)
    }

    /// What was shown, for people.
    #[must_use]
    pub fn shows(&self) -> Vec<String> {
        let (leaves, piece) = (self.leaves_checked, &self.piece);
        vec![match self.asked_whole() {
            true => {
                format!("whoever made it could produce all {leaves} leaves of {piece}, which was asked whole")
            }
            false => {
                format!(
                    "whoever made it could produce {leaves} drawn leaves of {piece} after the seed was known"
                )
            }
        }]
    }

    /// What was not, for people.
    #[must_use]
    pub fn does_not_show(&self) -> Vec<String> {
        let when = match self.asked_whole() {
            true => {
                "when it was made: a piece that is asked whole needs neither the seed nor the number of draws, which may be any"
            }
            false => "that the seed was fresh: only who drew it, or a beacon, knows that",
        };
        vec!["where the bytes are, or how many copies there are".to_owned(), when.to_owned()]
    }
}

/// Accepts a proof only if it holds every challenged leaf of the piece and nothing else.
///
/// # Errors
/// Says what is wrong; every one of them is the prover's fault, except a piece of no bytes.
pub fn verify(
    piece: &PieceCid,
    challenge: &Challenge,
    proof: &PossessionProof,
) -> Result<Verdict, ProofError> {
    let positions = challenge.positions(piece)?;
    let (expected, found) = (positions.len(), proof.leaves.len());
    if expected != found {
        return Err(ProofError::LeafNumber { expected, found });
    }
    let (expected, found) = (sibling_count(piece, &positions), proof.siblings.len());
    if expected != found {
        return Err(ProofError::SiblingNumber { expected, found });
    }
    verify_at(piece, &positions, &proof.leaves, &proof.siblings)?;
    Ok(Verdict { piece: *piece, challenge: *challenge, leaves_checked: positions.len() })
}

/// Siblings that a proof of these leaves has.
pub(super) fn sibling_count(piece: &PieceCid, positions: &[u64]) -> usize {
    super::plan::given(positions, piece.leaf_count(), piece.height()).len()
}

/// Checks these leaves of a piece (ascending, each once; as many as `leaves`) against its root.
pub(super) fn verify_at(
    piece: &PieceCid,
    positions: &[u64],
    leaves: &[Node],
    siblings: &[Node],
) -> Result<(), ProofError> {
    let known: Vec<(u64, Node)> = positions.iter().copied().zip(leaves.iter().copied()).collect();
    if let Some((position, _)) = known.iter().find(|(_, leaf)| leaf[31] & 0xc0 != 0) {
        return Err(ProofError::LeafBits(*position));
    }
    if root(known, piece, siblings)? == *piece.root() { Ok(()) } else { Err(ProofError::Root) }
}

fn root(mut known: Vec<(u64, Node)>, piece: &PieceCid, siblings: &[Node]) -> Result<Node, ProofError> {
    let mut given = siblings.iter();
    let short = || ProofError::SiblingNumber { expected: siblings.len() + 1, found: siblings.len() };
    let mut width = piece.leaf_count();
    for level in 0..piece.height() {
        let mut above = Vec::with_capacity(known.len());
        let mut rest = known.as_slice();
        while let Some(((index, node), tail)) = rest.split_first() {
            let next = tail.first();
            rest = tail;
            let other = match sibling(*index, next.map(|(index, _)| *index), width) {
                Sibling::Known => {
                    rest = tail.get(1..).unwrap_or_default();
                    next.map(|(_, node)| *node).unwrap_or_default()
                }
                Sibling::Zero => zero_node(level),
                Sibling::Given => *given.next().ok_or_else(short)?,
            };
            let parent = if index % 2 == 0 { hash_pair(node, &other) } else { hash_pair(&other, node) };
            above.push((index / 2, parent));
        }
        known = above;
        width = width.div_ceil(2);
    }
    known.first().map(|(_, node)| *node).ok_or(ProofError::EmptyPiece)
}

#[cfg(test)]
mod tests;
