//! That a slot's Poseidon tree is over the same leaves as its piece CID: openings in both trees.
//!
//! A possession audit of the piece, with the same leaves opened in the Poseidon tree as well. The leaves
//! are sent once: what verifies in both trees is equal in both. It needs the piece CID and no bytes of
//! the slot, any audit may be one, and openings add up over time (`odds`).
//!
//! What it cannot show: that *all* leaves agree. Whoever needs that builds the tree itself from the
//! bytes (`SlotTreeBuilder`) and compares roots; so does `Binding::exhaustive` for slots so short that a
//! challenge asks for every leaf.
//!
//! ```text
//! DAG-CBOR [1, possession proof, siblings]: version, the proof's own bytes, nodes of 32 bytes
//! ```

use std::collections::BTreeMap;

use holdfast_proofs::{Challenge, PossessionProof, ProofError, ProveError, ReadAt, TreeCache, prove, verify};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteBuf, Bytes};
use thiserror::Error;

use crate::field::{from_node, to_node};
use crate::tree::{SLOT_HEIGHT, SlotCommitment, SlotTree, TreeError, leads_to_root, siblings};

const VERSION: u8 = 1;
/// The most siblings a proof can need: seven a level for each of a challenge's 512 leaves.
const SIBLINGS_MAX: usize = 512 * 7 * SLOT_HEIGHT as usize;
/// The possession part, the siblings, and the array around them.
pub const BINDING_BYTES_MAX: usize = holdfast_proofs::pdp::PROOF_BYTES_MAX + SIBLINGS_MAX * 32 + 32;

/// Why a binding is refused, or cannot be shown.
#[derive(Debug, Error)]
pub enum BindingError {
    #[error("a binding of {0} bytes is longer than any valid one ({BINDING_BYTES_MAX})")]
    TooLong(usize),
    #[error("not a binding proof")]
    Malformed,
    #[error("a binding proof of version {0}: newer than this program")]
    Newer(u8),
    /// The piece's own tree refuses: possession was not shown either.
    #[error(transparent)]
    Possession(#[from] ProofError),
    #[error("the leaves are the piece's and lead to another root than the slot's")]
    Root,
    #[error(transparent)]
    Prove(#[from] ProveError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error("the two caches belong to different pieces")]
    OtherPiece,
}

/// Leaves opened in both trees of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindingProof {
    possession: PossessionProof,
    siblings: Vec<[u8; 32]>,
}

/// That these draws were equal in both trees. Only `check_binding` makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    slot: SlotCommitment,
    openings: u16,
    exhaustive: bool,
}

impl Binding {
    #[must_use]
    pub fn slot(&self) -> &SlotCommitment {
        &self.slot
    }

    /// Independent draws that were equal in both trees.
    #[must_use]
    pub fn openings(&self) -> u16 {
        self.openings
    }

    /// Whether every leaf of the slot was among them: the trees are over the same bytes, without doubt.
    #[must_use]
    pub fn exhaustive(&self) -> bool {
        self.exhaustive
    }
}

#[derive(Serialize)]
struct WireOut<'a>(u8, &'a Bytes, &'a Bytes);

#[derive(Deserialize)]
struct WireIn(u8, ByteBuf, ByteBuf);

impl BindingProof {
    /// The proof's bytes.
    ///
    /// # Errors
    /// None in practice: byte strings in memory always encode.
    pub fn encode(&self) -> Result<Vec<u8>, BindingError> {
        let possession = self.possession.encode()?;
        let siblings = Bytes::new(self.siblings.as_flattened());
        serde_ipld_dagcbor::to_vec(&WireOut(VERSION, Bytes::new(&possession), siblings))
            .map_err(|_| BindingError::Malformed)
    }

    /// Reads a proof from untrusted bytes.
    ///
    /// # Errors
    /// `TooLong` before anything is read, `Newer`, `Malformed`; a proof has one spelling.
    pub fn decode(bytes: &[u8]) -> Result<Self, BindingError> {
        if bytes.len() > BINDING_BYTES_MAX {
            return Err(BindingError::TooLong(bytes.len()));
        }
        if let [0x83, version @ 2..=23, ..] = bytes {
            return Err(BindingError::Newer(*version));
        }
        let WireIn(version, possession, siblings) =
            serde_ipld_dagcbor::from_slice(bytes).map_err(|_| BindingError::Malformed)?;
        let (siblings, []) = siblings.as_chunks::<32>() else { return Err(BindingError::Malformed) };
        let proof = Self { possession: PossessionProof::decode(&possession)?, siblings: siblings.to_vec() };
        if version != VERSION || proof.encode()? != bytes {
            return Err(BindingError::Malformed);
        }
        Ok(proof)
    }

    /// The possession proof in it, which says what it says without the rest.
    #[must_use]
    pub fn possession(&self) -> &PossessionProof {
        &self.possession
    }
}

/// Opens the leaves of a challenge in both trees.
///
/// # Errors
/// What either tree's file or the payload says; `OtherPiece` where the files are of different pieces.
pub fn open_binding<S, C, T>(
    source: &S,
    cache: &TreeCache<C>,
    tree: &SlotTree<T>,
    challenge: &Challenge,
) -> Result<BindingProof, BindingError>
where
    S: ReadAt + ?Sized,
    C: ReadAt,
    T: ReadAt,
{
    if cache.piece() != tree.piece() {
        return Err(BindingError::OtherPiece);
    }
    let positions = challenge.positions(tree.piece())?;
    let possession = prove(source, cache, challenge)?;
    let opened = tree.open_leaves(source, &positions)?;
    let siblings = siblings(&opened, &positions, tree.piece().leaf_count()).ok_or(BindingError::Root)?;
    Ok(BindingProof { possession, siblings: siblings.iter().map(to_node).collect() })
}

/// Accepts only if the challenged leaves, all of them and no others, are in both trees of the slot.
///
/// # Errors
/// Says what is wrong; every one of them is the prover's fault.
pub fn check_binding(
    slot: &SlotCommitment,
    challenge: &Challenge,
    proof: &BindingProof,
) -> Result<Binding, BindingError> {
    let piece = slot.piece();
    verify(piece, challenge, &proof.possession)?;
    let positions = challenge.positions(piece)?;
    let leaves = proof.possession.leaves().iter().map(from_node);
    let shown: Option<BTreeMap<_, _>> =
        positions.iter().zip(leaves).map(|(position, leaf)| Some((*position, leaf?))).collect();
    let siblings: Option<Vec<_>> = proof.siblings.iter().map(from_node).collect();
    let (Some(shown), Some(siblings)) = (shown, siblings) else { return Err(BindingError::Malformed) };
    if !leads_to_root(slot.root().0, piece.leaf_count(), &shown, &siblings) {
        return Err(BindingError::Root);
    }
    let exhaustive = positions.len() as u64 == piece.leaf_count();
    Ok(Binding { slot: *slot, openings: challenge.count(), exhaustive })
}

#[cfg(test)]
mod tests;
