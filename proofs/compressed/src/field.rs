//! The field, and Poseidon over it: the hashes of slot trees (8 to 1), set trees (16 to 1) and draws.
//!
//! Constants and round numbers are `neptune`'s "standard" strength with its Merkle-tree domain tag,
//! which are Filecoin's; the permutation is written here again, since trees are what a provider spends
//! its time on. The tests hold both against each other.

use std::sync::OnceLock;

use blstrs::Scalar;
use ff::Field;
use generic_array::typenum::{U2, U8, U16};
use holdfast_proofs::commp::Node;
use neptune::Arity;
use neptune::poseidon::PoseidonConstants;

/// An element of BLS12-381's scalar field.
pub(crate) type Fr = Scalar;

/// Children of a node, in slot trees and set trees alike.
pub(crate) const ARITY: usize = 8;

/// The field element that 32 little-endian bytes spell, if they are below the modulus.
pub(crate) fn from_node(node: &Node) -> Option<Fr> {
    Option::from(Fr::from_bytes_le(node))
}

/// The one spelling of a field element.
pub(crate) fn to_node(element: &Fr) -> Node {
    element.to_bytes_le()
}

/// The constants of a slot tree's node.
pub(crate) fn constants8() -> &'static PoseidonConstants<Fr, U8> {
    static CONSTANTS: OnceLock<PoseidonConstants<Fr, U8>> = OnceLock::new();
    CONSTANTS.get_or_init(PoseidonConstants::new)
}

/// The constants of a set tree's node: a root and a number of leaves for each of eight children.
pub(crate) fn constants16() -> &'static PoseidonConstants<Fr, U16> {
    static CONSTANTS: OnceLock<PoseidonConstants<Fr, U16>> = OnceLock::new();
    CONSTANTS.get_or_init(PoseidonConstants::new)
}

/// The constants of a draw: seed and number.
pub(crate) fn constants2() -> &'static PoseidonConstants<Fr, U2> {
    static CONSTANTS: OnceLock<PoseidonConstants<Fr, U2>> = OnceLock::new();
    CONSTANTS.get_or_init(PoseidonConstants::new)
}

pub(crate) fn hash8(children: &[Fr; 8]) -> Fr {
    hash::<U8, 9>(constants8(), children)
}

pub(crate) fn hash16(children: &[Fr; 16]) -> Fr {
    hash::<U16, 17>(constants16(), children)
}

pub(crate) fn hash2(pair: &[Fr; 2]) -> Fr {
    hash::<U2, 3>(constants2(), pair)
}

fn s_box(x: Fr) -> Fr {
    x.square().square() * x
}

/// The permutation with its constants moved as `neptune` moves them: round keys after the S-boxes, one
/// for each partial round, whose matrices have one dense row and column. `WIDTH` is the arity plus one.
fn hash<A: Arity<Fr>, const WIDTH: usize>(constants: &PoseidonConstants<Fr, A>, preimage: &[Fr]) -> Fr {
    debug_assert_eq!(preimage.len() + 1, WIDTH);
    let mut state = [Fr::ZERO; WIDTH];
    state[0] = constants.domain_tag;
    state[1..].copy_from_slice(preimage);
    let mut keys = constants.compressed_round_constants.iter();
    let dense = &constants.mds_matrices.m;
    add_keys(&mut state, &mut keys);
    for round in 1..=constants.half_full_rounds {
        state = state.map(s_box);
        add_keys(&mut state, &mut keys);
        let last = round == constants.half_full_rounds;
        state = times(&state, if last { &constants.pre_sparse_matrix } else { dense });
    }
    for matrix in &constants.sparse_matrixes {
        let first = s_box(state[0]) + keys.next().unwrap_or(&Fr::ZERO);
        let mut top = first * matrix.w_hat[0];
        for (element, (weight, spread)) in
            state[1..].iter_mut().zip(matrix.w_hat[1..].iter().zip(&matrix.v_rest))
        {
            top += *element * weight;
            *element += first * spread;
        }
        state[0] = top;
    }
    for _ in 1..constants.half_full_rounds {
        state = state.map(s_box);
        add_keys(&mut state, &mut keys);
        state = times(&state, dense);
    }
    debug_assert!(keys.next().is_none());
    // Of the last product only the element that is the hash is worth its multiplications.
    state.iter().zip(dense).map(|(element, row)| s_box(*element) * row[1]).sum()
}

fn add_keys<'a, const WIDTH: usize>(state: &mut [Fr; WIDTH], keys: &mut impl Iterator<Item = &'a Fr>) {
    for (element, key) in state.iter_mut().zip(keys) {
        *element += key;
    }
}

/// The row vector times the matrix.
fn times<const WIDTH: usize>(state: &[Fr; WIDTH], matrix: &[Vec<Fr>]) -> [Fr; WIDTH] {
    let mut out = [Fr::ZERO; WIDTH];
    for (element, row) in state.iter().zip(matrix) {
        for (sum, weight) in out.iter_mut().zip(row) {
            *sum += *element * weight;
        }
    }
    out
}

#[cfg(test)]
mod tests;
