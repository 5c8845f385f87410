//! The statement that a compressed proof proves, as constraints.
//!
//! ```text
//! public   the set's root, the audit's seed
//! draw i   h = Poseidon(seed, i);  low = its low 128 bits;  low = quotient * total + leaf
//!          total = the sum of the numbers in the root's family
//! set      at each level: the family hashes to the node; a child is chosen; leaf, less the leaves of
//!          the children before it, is within [0, the child's number)
//! slot     at each level: the group hashes to the node; the child that three bits of leaf say is next;
//!          at the bottom the whole group of eight leaves is known
//! ```
//!
//! What is *not* constrained, and why that is sound: the numbers of a family are not held below 2^48 nor
//! against their sum. Whoever verifies has built the set or checked a `SetPath`, so the families on the
//! way to its slot are honest; in such a family exactly one child's interval holds a leaf, so no draw
//! that falls on the slot can lead elsewhere, whatever other families claim.

mod gadgets;

use bellpepper_core::num::AllocatedNum;
use bellpepper_core::{Circuit, ConstraintSystem, SynthesisError};
use ff::{Field, PrimeField};

use crate::draw::{Audit, DRAW_BITS, draws};
use crate::field::{ARITY, Fr, constants2, constants8, constants16};
use crate::prove::Way;
use crate::set::{COUNT_BITS, SlotSet};
use crate::shape::Shape;
use crate::tree::SLOT_HEIGHT;
pub use holdfast_setup::CircuitSize;

use gadgets::{Num, constant, equal, number, poseidon, product, range, select, select_bits, sum};

/// The size of a shape's circuit, by counting (about a second for `Shape::V1`).
///
/// # Errors
/// None in practice: the constraints need no witness.
pub fn circuit_size(shape: Shape) -> Result<CircuitSize, SynthesisError> {
    holdfast_setup::size_of(AuditCircuit::blank(shape))
}

/// Bits of a leaf's place within a slot.
const LEAF_BITS: u32 = 3 * SLOT_HEIGHT as u32;
/// A quotient times a number of leaves does not wrap.
const _: () = assert!(DRAW_BITS + COUNT_BITS < Fr::CAPACITY);

/// What the prover knows of one draw.
#[derive(Debug, Clone)]
pub(crate) struct DrawWitness {
    pub(crate) quotient: u128,
    /// From the set's root downward: hash and number of each child, and which child is next.
    pub(crate) families: Vec<([[Fr; 2]; ARITY], u8)>,
    /// From the slot's root downward.
    pub(crate) groups: Vec<[Fr; ARITY]>,
}

/// The whole statement; without witnesses where only its constraints matter.
#[derive(Debug, Clone)]
pub(crate) struct AuditCircuit {
    shape: Shape,
    set: Option<Fr>,
    seed: Option<Fr>,
    draws: Vec<Option<DrawWitness>>,
}

impl AuditCircuit {
    /// The constraints alone.
    pub(crate) fn blank(shape: Shape) -> Self {
        Self { shape, set: None, seed: None, draws: vec![None; usize::from(shape.draws())] }
    }

    /// The statement about a set, with the way that was opened for each draw.
    pub(crate) fn new(set: &SlotSet, audit: &Audit, ways: Vec<Way>) -> Self {
        let draws = draws(audit, set.leaves());
        let witnesses = draws.iter().zip(ways).map(|(draw, way)| {
            let families = set.families(way.slot);
            let depth = families.len();
            let digit = |level: usize| ((way.slot >> (3 * (depth - 1 - level))) % ARITY) as u8;
            let numbers = families.iter().enumerate().map(|(level, family)| {
                (family.map(|child| [child.hash, Fr::from(child.leaves)]), digit(level))
            });
            Some(DrawWitness { quotient: draw.quotient, families: numbers.collect(), groups: way.groups })
        });
        let [root, seed] = audit.inputs();
        Self { shape: set.shape(), set: Some(root), seed: Some(seed), draws: witnesses.collect() }
    }
}

impl Circuit<Fr> for AuditCircuit {
    fn synthesize<CS: ConstraintSystem<Fr>>(self, cs: &mut CS) -> Result<(), SynthesisError> {
        let input = |value: Option<Fr>| move || value.ok_or(SynthesisError::AssignmentMissing);
        let set = AllocatedNum::alloc_input(cs.namespace(|| "set root"), input(self.set))?.into();
        let seed = AllocatedNum::alloc_input(cs.namespace(|| "seed"), input(self.seed))?.into();
        for (i, witness) in self.draws.iter().enumerate() {
            let mut cs = cs.namespace(|| format!("draw {i}"));
            let witness = witness.as_ref();
            let low = draw_bits(cs.namespace(|| "challenge"), &seed, i as u64)?;
            let (slot, place) = in_set(cs.namespace(|| "set"), self.shape, &set, low, witness)?;
            in_slot(cs.namespace(|| "slot"), slot, &place, witness)?;
        }
        Ok(())
    }
}

/// The low bits of the hash of seed and number, as one number.
fn draw_bits<CS: ConstraintSystem<Fr>>(mut cs: CS, seed: &Num, i: u64) -> Result<Num, SynthesisError> {
    let preimage = [seed.clone(), constant::<CS>(Fr::from(i))];
    let hash = poseidon(cs.namespace(|| "hash"), constants2(), &preimage)?;
    let whole = number(cs.namespace(|| "whole"), hash.get_value())?;
    let whole_num = whole.clone().into();
    equal(cs.namespace(|| "whole is the hash"), &whole_num, &hash);
    // Strict: a second spelling of the hash, plus the modulus, would be a second draw to choose from.
    let bits = whole.to_bits_le_strict(cs.namespace(|| "bits"))?;
    let mut weight = Fr::ONE;
    let mut low = Num::zero();
    for bit in bits.iter().take(DRAW_BITS as usize) {
        low = low.add_bool_with_coeff(CS::one(), bit, weight);
        weight = weight.double();
    }
    Ok(low)
}

/// Goes down the set's tree to a draw's slot: the root of its tree, and the bits of the leaf's place.
fn in_set<CS: ConstraintSystem<Fr>>(
    mut cs: CS,
    shape: Shape,
    root: &Num,
    low: Num,
    witness: Option<&DrawWitness>,
) -> Result<(Num, Vec<Num>), SynthesisError> {
    let mut node = root.clone();
    let mut leaf = None;
    let mut place = Vec::new();
    for level in 0..shape.set_depth() {
        let mut cs = cs.namespace(|| format!("level {level}"));
        let known = witness.and_then(|witness| witness.families.get(usize::from(level)));
        let family = family(cs.namespace(|| "family"), &node, known.map(|(family, _)| family))?;
        let before = match leaf {
            Some(leaf) => leaf,
            None => {
                let total = sum(family.numbers.iter());
                remainder(cs.namespace(|| "remainder"), &total, &low, witness)?
            }
        };
        let bits = select_bits(cs.namespace(|| "child"), known.map(|(_, digit)| *digit))?;
        node = select(cs.namespace(|| "hash"), &bits, &family.hashes)?;
        let leaves = select(cs.namespace(|| "number"), &bits, &family.numbers)?;
        let skipped: Vec<Num> = (0..ARITY).map(|child| sum(family.numbers.iter().take(child))).collect();
        let skipped = select(cs.namespace(|| "skipped"), &bits, &skipped)?;
        let inside = before.add(&skipped.scale(-Fr::ONE));
        let last = level + 1 == shape.set_depth();
        let width = if last { LEAF_BITS } else { COUNT_BITS };
        place = range(cs.namespace(|| "not before the child"), &inside, width)?;
        let behind = leaves.add(&inside.clone().scale(-Fr::ONE)).add(&constant::<CS>(-Fr::ONE));
        range(cs.namespace(|| "not behind the child"), &behind, width)?;
        leaf = Some(inside);
    }
    Ok((node, place))
}

struct FamilyNums {
    hashes: Vec<Num>,
    numbers: Vec<Num>,
}

/// Eight children whose hash is `node`.
fn family<CS: ConstraintSystem<Fr>>(
    mut cs: CS,
    node: &Num,
    known: Option<&[[Fr; 2]; ARITY]>,
) -> Result<FamilyNums, SynthesisError> {
    let mut preimage: Vec<Num> = Vec::with_capacity(2 * ARITY);
    for child in 0..ARITY {
        let pair = known.and_then(|family| family.get(child));
        for (name, value) in [("hash", pair.map(|pair| pair[0])), ("number", pair.map(|pair| pair[1]))] {
            preimage.push(number(cs.namespace(|| format!("{name} {child}")), value)?.into());
        }
    }
    let hash = poseidon(cs.namespace(|| "poseidon"), constants16(), &preimage)?;
    equal(cs.namespace(|| "family hashes to its node"), &hash, node);
    let (hashes, numbers) =
        preimage.as_chunks::<2>().0.iter().cloned().map(|[hash, number]| (hash, number)).unzip();
    Ok(FamilyNums { hashes, numbers })
}

/// The leaf of the set that the draw falls on. That it is below the total is what the root's family
/// checks; that the product does not wrap follows, 2^128 times 2^48 being below the modulus.
fn remainder<CS: ConstraintSystem<Fr>>(
    mut cs: CS,
    total: &Num,
    low: &Num,
    witness: Option<&DrawWitness>,
) -> Result<Num, SynthesisError> {
    let bits = (0..DRAW_BITS).map(|bit| witness.map(|witness| witness.quotient >> bit & 1 == 1));
    let mut quotient = Num::zero();
    let mut weight = Fr::ONE;
    for (i, bit) in bits.enumerate() {
        let bit = gadgets::bit(cs.namespace(|| format!("quotient bit {i}")), bit)?;
        quotient = quotient.add(&bit.scale(weight));
        weight = weight.double();
    }
    let whole = product(cs.namespace(|| "quotient times total"), &quotient, total)?;
    Ok(low.clone().add(&whole.scale(-Fr::ONE)))
}

/// Goes down a slot's tree to the group of eight leaves that `place`, in bits from the lowest, falls in.
fn in_slot<CS: ConstraintSystem<Fr>>(
    mut cs: CS,
    root: Num,
    place: &[Num],
    witness: Option<&DrawWitness>,
) -> Result<(), SynthesisError> {
    let mut node = root;
    // The lowest three bits say which of the eight leaves: all of them are known anyway.
    for (depth, bits) in place.as_chunks::<3>().0.iter().rev().enumerate() {
        let mut cs = cs.namespace(|| format!("depth {depth}"));
        let known = witness.and_then(|witness| witness.groups.get(depth));
        let mut group = Vec::with_capacity(ARITY);
        for child in 0..ARITY {
            let value = known.and_then(|group| group.get(child)).copied();
            group.push(Num::from(number(cs.namespace(|| format!("child {child}")), value)?));
        }
        let hash = poseidon(cs.namespace(|| "poseidon"), constants8(), &group)?;
        equal(cs.namespace(|| "group hashes to its node"), &hash, &node);
        if depth + 1 < usize::from(SLOT_HEIGHT) {
            node = select(cs.namespace(|| "next"), bits, &group)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
