//! Which leaves an audit asks: derived inside the circuit, from a seed that the proof is about.
//!
//! ```text
//! seed     SHA-256(domain32 | shape | set root | the audit's 32 bytes), its top two bits cleared
//! draw i   Poseidon(seed, i): its low 128 bits, modulo the leaves of the set
//! ```
//!
//! Derived inside, because then a verifier needs the seed and the root and nothing of the set: no list,
//! no running sums, no hash for each draw. The modulo's bias is below 2^-80. Draws are independent; the
//! whole group of eight leaves in which one falls must be known.

use holdfast_proofs::commp::Node;
use sha2::{Digest, Sha256};

use crate::field::{Fr, from_node, hash2, to_node};
use crate::set::SetRoot;
use crate::shape::Shape;

const SEED_DOMAIN: [u8; 32] = *b"holdfast/compressed/seed/v1\0\0\0\0\0";

/// Bits of a draw's hash that are used.
pub(crate) const DRAW_BITS: u32 = 128;

/// One audit of one set in one shape: its seed is the circuit's second public input, the set's root the
/// first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audit {
    shape: Shape,
    set: SetRoot,
    seed: Fr,
}

impl Audit {
    /// Binds 32 bytes that the prover could not foresee (`holdfast_proofs::Challenge::seed_from` binds
    /// them to the parties, the deal and the epoch) to the set and the shape.
    #[must_use]
    pub fn new(shape: Shape, set: &SetRoot, fresh: &[u8; 32]) -> Self {
        let hash = Sha256::new()
            .chain_update(SEED_DOMAIN)
            .chain_update(shape.to_bytes())
            .chain_update(set.to_bytes())
            .chain_update(fresh);
        let mut node: Node = hash.finalize().into();
        node[31] &= 0x3f;
        // 254 bits are below the modulus.
        Self { shape, set: *set, seed: from_node(&node).unwrap_or_default() }
    }

    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    #[must_use]
    pub fn set(&self) -> &SetRoot {
        &self.set
    }

    /// The public inputs in their order, 32 bytes each, little-endian: set root and seed.
    #[must_use]
    pub fn public_inputs(&self) -> [[u8; 32]; 2] {
        self.inputs().map(|input| to_node(&input))
    }

    pub(crate) fn inputs(&self) -> [Fr; 2] {
        [self.set.0, self.seed]
    }
}

/// The low bits of a draw's hash.
pub(crate) fn low_bits(hash: &Fr) -> u128 {
    to_node(hash).first_chunk().map_or(0, |low| u128::from_le_bytes(*low))
}

/// One draw, split as the circuit splits it: `low = quotient * total + leaf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Draw {
    pub(crate) quotient: u128,
    pub(crate) leaf: u64,
}

/// The draws of an audit on a set of `total` leaves, which are at least one.
pub(crate) fn draws(audit: &Audit, total: u64) -> Vec<Draw> {
    let total = u128::from(total.max(1));
    (0..u64::from(audit.shape.draws()))
        .map(|i| low_bits(&hash2(&[audit.seed, Fr::from(i)])))
        // A remainder by a u64 is a u64.
        .map(|low| Draw { quotient: low / total, leaf: (low % total) as u64 })
        .collect()
}

#[cfg(test)]
mod tests;
