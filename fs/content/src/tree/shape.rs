//! Where nodes end.

use super::Entry;

/// The sizes of a variant's nodes, in weight: an entry's encoded size, without regard to its neighbours.
///
/// ```text
/// a node ends after the entry at which
///     weight of the node >= max                                       (forced)
///  or weight of the node >= min  and  hash < weight of the entry * slope / target   (of 2^64)
///     slope = 1 below target, 2 below 2 target, 4 above;  hash = BLAKE3 keyed by the boundary key over (level u8, key)
/// ```
///
/// The rising slope keeps sizes close to the target. Both rules look only at entries since the node's beginning, which
/// is what makes the tree's shape a function of its rows. At inner levels a node has at least two entries, so that each
/// level is shorter than the one below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// No node ends before this weight, but the last of a level.
    pub min: usize,
    /// About the mean.
    pub target: usize,
    /// No entry is added from this weight on.
    pub max: usize,
}

impl Shape {
    /// Nodes of about 16 KiB: some 150 rows, so that a path of a million files is three fetches.
    pub const NAMESPACE: Self = Self { min: 6 << 10, target: 14 << 10, max: 64 << 10 };
    /// Nodes of about 8 KiB: rows are scattered by their hash, so each change costs a node of its own.
    pub const PHYSICAL: Self = Self { min: 3 << 10, target: 7 << 10, max: 32 << 10 };

    /// Whether a node of `weight` (this entry included) ends after an entry.
    pub(super) fn ends(
        &self,
        boundary_key: &[u8; 32],
        level: u8,
        entry: &Entry,
        weight: usize,
        count: usize,
    ) -> bool {
        if level > 0 && count < 2 {
            return false;
        }
        if weight >= self.max {
            return true;
        }
        if weight < self.min {
            return false;
        }
        let slope = match weight {
            weight if weight < self.target => 1,
            weight if weight < 2 * self.target => 2,
            _ => 4,
        };
        let share = (u64::MAX / self.target as u64).saturating_mul(slope * entry_weight(entry) as u64);
        boundary_hash(boundary_key, level, &entry.key) < share
    }
}

/// An entry's part of a node, without regard to its neighbours.
pub(super) fn entry_weight(entry: &Entry) -> usize {
    entry.key.len() + entry.value.len() + 40 * entry.links.len() + 4
}

fn boundary_hash(boundary_key: &[u8; 32], level: u8, key: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new_keyed(boundary_key);
    hasher.update(&[level]);
    hasher.update(key);
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    u64::from_le_bytes(first)
}
