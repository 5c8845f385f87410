//! Openings of several leaves that share nodes: which nodes are sent, and how they lead to the root.
//!
//! From the leaves upward, left to right: each node of a group is known from below, or lies beyond the
//! data (a constant), or is given. Prover and verifier walk alike.

use std::collections::BTreeMap;

use super::{Opened, SLOT_HEIGHT, width, zero_root};
use crate::field::{ARITY, Fr, hash8};

/// The nodes that these leaves (of a slot with `leaves` of them) do not imply, in their order. `None`
/// where the ways are not all open.
pub(crate) fn siblings(opened: &Opened, positions: &[u64], leaves: u64) -> Option<Vec<Fr>> {
    let mut out = Vec::new();
    let mut known: Vec<u64> = distinct(positions.iter().copied());
    for level in 0..SLOT_HEIGHT {
        for index in given(&known, width(leaves, level)) {
            out.push(opened.node(level, index)?);
        }
        known = distinct(known.iter().map(|index| index / ARITY as u64));
    }
    Some(out)
}

/// Whether these leaves and siblings, exactly, lead to the root.
pub(crate) fn leads_to_root(root: Fr, leaves: u64, shown: &BTreeMap<u64, Fr>, siblings: &[Fr]) -> bool {
    let mut known = shown.clone();
    let mut siblings = siblings.iter();
    for level in 0..SLOT_HEIGHT {
        let mut above = BTreeMap::new();
        for parent in distinct(known.keys().map(|index| index / ARITY as u64)) {
            let mut group = [zero_root(level); ARITY];
            for (index, node) in (parent * ARITY as u64..).zip(&mut group) {
                if let Some(shown) = known.get(&index) {
                    *node = *shown;
                } else if index < width(leaves, level) {
                    let Some(given) = siblings.next() else { return false };
                    *node = *given;
                }
            }
            above.insert(parent, hash8(&group));
        }
        known = above;
    }
    siblings.next().is_none() && known.len() == 1 && known.get(&0) == Some(&root)
}

/// The siblings that known nodes (ascending) of a level of this width lack.
fn given(known: &[u64], width: u64) -> Vec<u64> {
    let parents = distinct(known.iter().map(|index| index / ARITY as u64));
    parents
        .iter()
        .flat_map(|parent| parent * ARITY as u64..(parent + 1) * ARITY as u64)
        .filter(|index| *index < width && known.binary_search(index).is_err())
        .collect()
}

/// Ascending numbers, each once.
fn distinct(ascending: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut out: Vec<u64> = ascending.collect();
    out.dedup();
    out
}
