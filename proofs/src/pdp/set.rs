//! Many pieces, one challenge, one proof: what a provider holds for one owner, say.
//!
//! The set is an ordered list of pieces; its leaves are theirs, one piece after the other. Draws fall on
//! a piece as often as it has leaves, so a fraction lost anywhere in the set is noticed as in one piece
//! of that size. The pieces that no draw falls on cost nothing.
//!
//! ```text
//! set      SHA-256(domain32 | number of pieces u64 BE | root, payload length u64 BE of each)
//! draw i   SHA-256(domain32 | seed | set | i u32 BE) mod all leaves; all of them if no more than draws
//! proof    as of one piece: the leaves of each piece that was drawn, in the set's order, then the
//!          siblings of each in the same order
//! ```

use sha2::{Digest, Sha256};

use super::challenge::Challenge;
use super::proof::{PossessionProof, ProofError};
use super::prove::{ProveError, prove_at};
use super::verify::{sibling_count, verify_at};
use crate::commp::{PieceCid, TreeCache};
use crate::read_at::ReadAt;

/// Pieces in a set: 64 TiB in slots of 64 MiB.
pub const SET_PIECES_MAX: usize = 1 << 20;

const SET_DOMAIN: [u8; 32] = *b"holdfast/pdp/set/v1\0\0\0\0\0\0\0\0\0\0\0\0\0";
const DRAW_DOMAIN: [u8; 32] = *b"holdfast/pdp/set/leaf/v1\0\0\0\0\0\0\0\0";

/// An ordered list of pieces that are challenged together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvingSet {
    pieces: Vec<PieceCid>,
    /// Where each piece's leaves end in the set's.
    ends: Vec<u64>,
    digest: [u8; 32],
}

/// That a set's proof was accepted. Only `verify_set` makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetVerdict {
    set: [u8; 32],
    challenge: Challenge,
    leaves_checked: usize,
    pieces: usize,
    asked_whole: bool,
}

impl SetVerdict {
    /// Digest of the set whose possession was shown.
    #[must_use]
    pub fn set(&self) -> &[u8; 32] {
        &self.set
    }

    #[must_use]
    pub fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    #[must_use]
    pub fn leaves_checked(&self) -> usize {
        self.leaves_checked
    }

    /// Whether every leaf of the set was asked, so that seed and count were not used.
    #[must_use]
    pub fn asked_whole(&self) -> bool {
        self.asked_whole
    }

    /// What was shown, for people.
    #[must_use]
    pub fn shows(&self) -> Vec<String> {
        let (leaves, pieces) = (self.leaves_checked, self.pieces);
        vec![match self.asked_whole {
            true => format!(
                "whoever made it could produce all {leaves} leaves of the {pieces} piece(s), which were asked whole"
            ),
            false => format!(
                "whoever made it could produce {leaves} leaves, drawn from all {pieces} piece(s) together, after the seed was known"
            ),
        }]
    }

    /// What was not, for people.
    #[must_use]
    pub fn does_not_show(&self) -> Vec<String> {
        let when = match self.asked_whole {
            true => {
                "when it was made: a set that is asked whole needs neither the seed nor the number of draws, which may be any"
            }
            false => "that the seed was fresh: only who drew it, or a beacon, knows that",
        };
        vec![
            "that this is the set that was agreed on: compare its pieces and their order".to_owned(),
            "that no small piece is missing: draws fall on a piece as often as it has leaves".to_owned(),
            "where the bytes are, or how many copies there are".to_owned(),
            when.to_owned(),
        ]
    }
}

impl ProvingSet {
    /// A set of these pieces, in this order; a piece may stand in it more than once.
    ///
    /// # Errors
    /// `EmptyPiece` where a piece has no bytes or there is no piece, `SetTooLarge`.
    pub fn new(pieces: Vec<PieceCid>) -> Result<Self, ProofError> {
        if pieces.len() > SET_PIECES_MAX {
            return Err(ProofError::SetTooLarge);
        }
        let mut hash = Sha256::new();
        hash.update(SET_DOMAIN);
        hash.update((pieces.len() as u64).to_be_bytes());
        let mut ends = Vec::with_capacity(pieces.len());
        let mut end = 0_u64;
        for piece in &pieces {
            if piece.leaf_count() == 0 {
                return Err(ProofError::EmptyPiece);
            }
            end = end.checked_add(piece.leaf_count()).ok_or(ProofError::SetTooLarge)?;
            ends.push(end);
            hash.update(piece.root());
            hash.update(piece.payload_len().to_be_bytes());
        }
        if pieces.is_empty() {
            return Err(ProofError::EmptyPiece);
        }
        Ok(Self { pieces, ends, digest: hash.finalize().into() })
    }

    #[must_use]
    pub fn pieces(&self) -> &[PieceCid] {
        &self.pieces
    }

    /// What names the set in deals and verdicts.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Leaves that draws fall on.
    #[must_use]
    pub fn leaf_count(&self) -> u64 {
        self.ends.last().copied().unwrap_or_default()
    }

    /// What a challenge asks: for each piece that is drawn, its place in the set and its leaves.
    #[must_use]
    pub fn positions(&self, challenge: &Challenge) -> Vec<(usize, Vec<u64>)> {
        let leaves = self.leaf_count();
        let drawn = if leaves <= u64::from(challenge.count()) {
            (0..leaves).collect()
        } else {
            let prefix = Sha256::new()
                .chain_update(DRAW_DOMAIN)
                .chain_update(challenge.seed())
                .chain_update(self.digest);
            challenge.draw(&prefix, leaves)
        };
        let mut out: Vec<(usize, Vec<u64>)> = Vec::new();
        for position in drawn {
            let piece = self.ends.partition_point(|end| *end <= position);
            let start = piece.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
            match out.last_mut().filter(|(last, _)| *last == piece) {
                Some((_, positions)) => positions.push(position - start),
                None => out.push((piece, vec![position - start])),
            }
        }
        out
    }
}

/// Answers a challenge about a set; `open` gives payload and tree cache of the pieces that are drawn.
///
/// # Errors
/// What `open` says, or as `prove`. A cache of another piece is `CacheError::OtherPiece`.
pub fn prove_set<S, C, E>(
    set: &ProvingSet,
    challenge: &Challenge,
    mut open: impl FnMut(usize, &PieceCid) -> Result<(S, TreeCache<C>), E>,
) -> Result<PossessionProof, E>
where
    S: ReadAt,
    C: ReadAt,
    E: From<ProveError>,
{
    let mut proof = PossessionProof { leaves: Vec::new(), siblings: Vec::new() };
    for (index, positions) in set.positions(challenge) {
        let Some(piece) = set.pieces.get(index) else { continue };
        let (source, cache) = open(index, piece)?;
        if cache.piece() != piece {
            return Err(ProveError::Cache(crate::commp::CacheError::OtherPiece).into());
        }
        let part = prove_at(&source, &cache, &positions)?;
        proof.leaves.extend(part.leaves);
        proof.siblings.extend(part.siblings);
    }
    Ok(proof)
}

/// Accepts a proof only if it holds every challenged leaf of the set and nothing else.
///
/// # Errors
/// Says what is wrong; every one of them is the prover's fault.
pub fn verify_set(
    set: &ProvingSet,
    challenge: &Challenge,
    proof: &PossessionProof,
) -> Result<SetVerdict, ProofError> {
    let drawn = set.positions(challenge);
    let leaves_expected: usize = drawn.iter().map(|(_, positions)| positions.len()).sum();
    if leaves_expected != proof.leaves.len() {
        return Err(ProofError::LeafNumber { expected: leaves_expected, found: proof.leaves.len() });
    }
    let (mut leaves, mut siblings) = (proof.leaves.as_slice(), proof.siblings.as_slice());
    let mut siblings_expected = 0;
    for (index, positions) in &drawn {
        let Some(piece) = set.pieces.get(*index) else { continue };
        let needed = sibling_count(piece, positions);
        siblings_expected += needed;
        let number = ProofError::SiblingNumber { expected: siblings_expected, found: proof.siblings.len() };
        let (own, rest) = siblings.split_at_checked(needed).ok_or(number)?;
        siblings = rest;
        let (shown, rest) = leaves.split_at_checked(positions.len()).ok_or(ProofError::Root)?;
        leaves = rest;
        verify_at(piece, positions, shown, own)?;
    }
    if !siblings.is_empty() {
        let found = proof.siblings.len();
        return Err(ProofError::SiblingNumber { expected: siblings_expected, found });
    }
    Ok(SetVerdict {
        set: set.digest,
        challenge: *challenge,
        leaves_checked: leaves_expected,
        pieces: set.pieces.len(),
        asked_whole: set.leaf_count() <= u64::from(challenge.count()),
    })
}

#[cfg(test)]
mod tests;
