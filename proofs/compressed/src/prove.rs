//! The prover: opens the drawn groups of leaves, then makes one proof over all of them.
//!
//! It checks its own proof before it hands it out, so that parameters of another circuit, or damaged
//! ones, are an error here and never a missed audit there.
//!
//! The library spreads its work over threads of its own, as many as the processor has cores unless the
//! process's environment says otherwise (`EC_GPU_NUM_THREADS`, `RAYON_NUM_THREADS`): whoever has a budget
//! runs this in a process of its own.

use std::collections::BTreeMap;

use bellpepper_core::SynthesisError;
use bellperson::groth16::create_random_proof;
use holdfast_proofs::ReadAt;
use rand_core::{CryptoRng, RngCore};
use thiserror::Error;

use crate::circuit::AuditCircuit;
use crate::draw::{Audit, draws};
use crate::field::{ARITY, Fr};
use crate::params::LocalParameters;
use crate::proof::CompressedProof;
use crate::set::{SlotEntry, SlotSet};
use crate::shape::Shape;
use crate::tree::{Opened, SLOT_HEIGHT, SlotTree, TreeError};
use crate::verify::{VerifyError, verify};

/// Why no proof can be made.
#[derive(Debug, Error)]
pub enum CompressError {
    #[error("the parameters are for {parameters:?}, the set is for {set:?}")]
    Shape { parameters: Shape, set: Shape },
    #[error("the audit is of another set")]
    OtherSet,
    #[error("the tree of slot {0} is of another slot")]
    OtherSlot(usize),
    #[error("slot {slot}: {error}")]
    Tree { slot: usize, error: TreeError },
    #[error("the constraints cannot be met: {0}")]
    Synthesis(#[from] SynthesisError),
    /// The parameters are damaged, or of another version of the circuit.
    #[error("the proof does not verify with its own parameters: {0}")]
    Own(VerifyError),
}

/// A draw's way through its slot.
pub(crate) struct Way {
    pub(crate) slot: usize,
    /// From the slot's root downward.
    pub(crate) groups: Vec<[Fr; ARITY]>,
}

/// Answers an audit of a set; `open` gives payload and tree of the slots that are drawn. `rng` hides
/// nothing (a proof is about public data) and keeps proofs of equal audits apart.
///
/// # Errors
/// What `open` says, or `CompressError`.
pub fn prove<S, T, E, R>(
    parameters: &LocalParameters,
    set: &SlotSet,
    audit: &Audit,
    mut open: impl FnMut(usize, &SlotEntry) -> Result<(S, SlotTree<T>), E>,
    rng: &mut R,
) -> Result<CompressedProof, E>
where
    S: ReadAt,
    T: ReadAt,
    E: From<CompressError>,
    R: RngCore + CryptoRng,
{
    if parameters.shape() != set.shape() {
        let (parameters, set) = (parameters.shape(), set.shape());
        return Err(CompressError::Shape { parameters, set }.into());
    }
    if (audit.shape(), *audit.set()) != (set.shape(), set.root()) {
        return Err(CompressError::OtherSet.into());
    }
    let ways = ways(set, audit, &mut open)?;
    let circuit = AuditCircuit::new(set, audit, ways);
    let proof = create_random_proof(circuit, parameters.groth(), rng).map_err(CompressError::from)?;
    let proof = CompressedProof(proof);
    verify(&parameters.verifying_key(), audit, &proof).map_err(CompressError::Own)?;
    Ok(proof)
}

/// Opens each drawn slot once, for all its draws.
pub(crate) fn ways<S, T, E>(
    set: &SlotSet,
    audit: &Audit,
    open: &mut impl FnMut(usize, &SlotEntry) -> Result<(S, SlotTree<T>), E>,
) -> Result<Vec<Way>, E>
where
    S: ReadAt,
    T: ReadAt,
    E: From<CompressError>,
{
    let drawn = draws(audit, set.leaves());
    let places: Vec<(usize, u64)> = drawn.iter().filter_map(|draw| set.locate(draw.leaf)).collect();
    let mut by_slot: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for (slot, leaf) in &places {
        by_slot.entry(*slot).or_default().push(*leaf);
    }
    let mut opened: BTreeMap<usize, Opened> = BTreeMap::new();
    for (slot, leaves) in by_slot {
        let Some(entry) = set.slots().get(slot) else { continue };
        let (source, tree) = open(slot, entry)?;
        if SlotEntry::from(tree.slot()) != *entry {
            return Err(CompressError::OtherSlot(slot).into());
        }
        let groups =
            tree.open_leaves(&source, &leaves).map_err(|error| CompressError::Tree { slot, error })?;
        opened.insert(slot, groups);
    }
    let way = |(slot, leaf): &(usize, u64)| {
        let opened = opened.get(slot)?;
        let groups = (0..SLOT_HEIGHT).rev().map(|level| opened.group(level, *leaf).copied());
        Some(Way { slot: *slot, groups: groups.collect::<Option<_>>()? })
    };
    let ways: Option<Vec<Way>> = places.iter().map(way).collect();
    Ok(ways.ok_or(CompressError::Synthesis(SynthesisError::AssignmentMissing))?)
}

#[cfg(test)]
mod tests;
