//! Openings: the groups of eight on the ways from some leaves to the root, each checked as it is read.
//!
//! From the root downward: a group of the file must hash to a node that is already known, the payload's
//! leaves to the lowest of those. So a damaged file and damaged payload are told apart.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proofs::ReadAt;
use holdfast_proofs::commp::{leaf_span, leaves_of};

use super::{SLOT_HEIGHT, SlotTree, TreeError, element, zero_root};
use crate::field::{ARITY, Fr, hash8};

/// Eight nodes with one parent.
pub(crate) type Group = [Fr; ARITY];

/// Checked groups of one slot.
pub(crate) struct Opened {
    /// `(level, parent)`: the children, of this level, of a node one level higher.
    groups: BTreeMap<(u8, u64), Group>,
}

impl Opened {
    /// The group in which the ancestor of `leaf` at `level` stands.
    pub(crate) fn group(&self, level: u8, leaf: u64) -> Option<&Group> {
        self.groups.get(&(level, leaf >> (3 * (level + 1))))
    }

    /// The node of a level, if its group is open.
    pub(crate) fn node(&self, level: u8, index: u64) -> Option<Fr> {
        self.groups.get(&(level, index / ARITY as u64))?.get((index % ARITY as u64) as usize).copied()
    }
}

impl<R: ReadAt> SlotTree<R> {
    /// Opens the ways from these leaves, in any order, to the root.
    pub(crate) fn open_leaves<S>(&self, source: &S, leaves: &[u64]) -> Result<Opened, TreeError>
    where
        S: ReadAt + ?Sized,
    {
        let count = self.piece().leaf_count();
        if let Some(beyond) = leaves.iter().find(|leaf| **leaf >= count) {
            return Err(TreeError::Position(*beyond));
        }
        let mut opened = Opened { groups: BTreeMap::new() };
        for level in (self.level()..SLOT_HEIGHT).rev() {
            for parent in ancestors(leaves, level + 1) {
                let group = completed(&self.group(level, parent)?, level);
                if hash8(&group) != self.known(&opened, level + 1, parent) {
                    return Err(TreeError::Damaged { level, group: parent });
                }
                opened.groups.insert((level, parent), group);
            }
        }
        for node in ancestors(leaves, self.level()) {
            self.open_payload(source, node, leaves, &mut opened)?;
        }
        Ok(opened)
    }

    fn known(&self, opened: &Opened, level: u8, index: u64) -> Fr {
        // A parent's own group was opened before: `None` is the root.
        opened.node(level, index).unwrap_or(self.slot().root().0)
    }

    /// Reads the leaves under a node of the lowest stored level and keeps the groups on their ways.
    fn open_payload<S>(
        &self,
        source: &S,
        node: u64,
        wanted: &[u64],
        opened: &mut Opened,
    ) -> Result<(), TreeError>
    where
        S: ReadAt + ?Sized,
    {
        let span = 3 * self.level();
        let (first, end) = (node << span, ((node + 1) << span).min(self.piece().leaf_count()));
        let mut below = self.read_leaves(source, first, end)?;
        for level in 0..self.level() {
            let first_group = first >> (3 * (level + 1));
            let groups: Vec<Group> = below.chunks(ARITY).map(|nodes| completed(nodes, level)).collect();
            for parent in ancestors(wanted, level + 1) {
                let group =
                    parent.checked_sub(first_group).and_then(|at| groups.get(usize::try_from(at).ok()?));
                if let Some(group) = group {
                    opened.groups.insert((level, parent), *group);
                }
            }
            below = groups.iter().map(hash8).collect();
        }
        if below.first() != Some(&self.known(opened, self.level(), node)) {
            return Err(TreeError::PayloadDamaged { first, end });
        }
        Ok(())
    }

    fn read_leaves<S>(&self, source: &S, first: u64, end: u64) -> Result<Vec<Fr>, TreeError>
    where
        S: ReadAt + ?Sized,
    {
        let (start, stop) = leaf_span(self.piece().payload_len(), first, end - first);
        let mut payload = vec![0; usize::try_from(stop - start).unwrap_or_default()];
        source.read_exact_at(start, &mut payload)?;
        // Leaf groups begin at quads, since eight leaves are two of them.
        let count = usize::try_from(end - first).unwrap_or_default();
        Ok(leaves_of(&payload).iter().take(count).map(element).collect())
    }
}

/// The distinct ancestors of these leaves at a level.
fn ancestors(leaves: &[u64], level: u8) -> BTreeSet<u64> {
    leaves.iter().map(|leaf| leaf >> (3 * level)).collect()
}

/// At most eight nodes of a level, and zeros after them.
fn completed(nodes: &[Fr], level: u8) -> Group {
    let mut group = [zero_root(level); ARITY];
    for (place, node) in group.iter_mut().zip(nodes) {
        *place = *node;
    }
    group
}
