//! The tree over a provider's slots: which leaves there are to draw from, and which slot each is in.
//!
//! ```text
//! slot     (root of its tree, number of its leaves)          an empty place: (0, 0)
//! node     (Poseidon of the eight roots and numbers in turn, sum of the numbers)
//! depth    of the shape; the set's root is the top node's hash alone, which holds the eight numbers
//! ```
//!
//! Leaf p of the set lies in the child whose interval of the running sums holds p, and so on downward:
//! draws fall on a slot as often as it has leaves, and never on padding.
//!
//! Whoever verifies either builds the set from its list, which is cheap, or holds the one slot that
//! matters to it against a root by a `SetPath`. A path's nodes fix the interval of its slot: the circuit
//! lets no draw from there lead anywhere else, whatever the rest of the tree may be.

use std::collections::BTreeSet;
use std::fmt;

use ff::Field;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use thiserror::Error;

use crate::field::{ARITY, Fr, from_node, hash16, to_node};
use crate::shape::Shape;
use crate::tree::{SLOT_LEAVES_MAX, SlotCommitment, TreeRoot};

/// Bits of the number of leaves of a set: 2^48 leaves are 8.9 PB.
pub(crate) const COUNT_BITS: u32 = 48;

const PATH_VERSION: u8 = 1;
/// Bytes of one child in a path: a hash and a number.
const CHILD_LEN: usize = 40;
/// The most that a path can take: every level, and the array around it.
const PATH_BYTES_MAX: usize = Shape::SET_DEPTH_MAX as usize * ARITY * CHILD_LEN + 32;

/// Why slots are no set, or a path does not lead to one. None of these is passing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SetError {
    #[error("a set of this shape has 1 to {max} slots, not {found}")]
    Slots { max: usize, found: usize },
    #[error("slot {0} has the tree of an earlier one: one copy would count twice")]
    Twice(usize),
    #[error("slot {0} has no leaves, or more than a tree has room for")]
    Leaves(usize),
    #[error("the path is malformed")]
    Malformed,
    #[error("a path of version {0}: newer than this program")]
    Newer(u8),
    #[error("the path does not lead from this slot to this root")]
    Root,
    #[error("the path's numbers of leaves do not add up")]
    Sum,
}

/// A slot as the set knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotEntry {
    root: TreeRoot,
    leaves: u64,
}

impl From<&SlotCommitment> for SlotEntry {
    fn from(slot: &SlotCommitment) -> Self {
        Self { root: *slot.root(), leaves: slot.piece().leaf_count() }
    }
}

impl SlotEntry {
    #[must_use]
    pub fn root(&self) -> &TreeRoot {
        &self.root
    }

    #[must_use]
    pub fn leaves(&self) -> u64 {
        self.leaves
    }
}

/// Root of a set's tree: what both sides of an audit agree on before its seed exists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SetRoot(pub(crate) Fr);

impl SetRoot {
    /// 32 bytes, little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        to_node(&self.0)
    }

    /// Reads a root; `None` where the bytes are not below the modulus.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        from_node(bytes).map(Self)
    }
}

impl fmt::Debug for SetRoot {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.to_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A node as its parent holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) hash: Fr,
    pub(crate) leaves: u64,
}

const EMPTY: Child = Child { hash: Fr::ZERO, leaves: 0 };

/// The eight children of a node of a set's tree.
pub(crate) type Family = [Child; ARITY];

fn node(children: &Family) -> Child {
    let mut flat = [Fr::ZERO; 2 * ARITY];
    for (pair, child) in flat.as_chunks_mut::<2>().0.iter_mut().zip(children) {
        *pair = [child.hash, Fr::from(child.leaves)];
    }
    // At most 2^24 slots of 2^24 leaves: no sum overflows.
    Child { hash: hash16(&flat), leaves: children.iter().map(|child| child.leaves).sum() }
}

/// An ordered list of slots under one root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotSet {
    shape: Shape,
    slots: Vec<SlotEntry>,
    /// `levels[l]`: the nodes with slots under them, from the slots upward; the last is the root alone.
    levels: Vec<Vec<Child>>,
    /// A subtree without slots, by level.
    empty: Vec<Child>,
}

impl SlotSet {
    /// A set of these slots, in this order.
    ///
    /// # Errors
    /// `Slots` where there are none or too many, `Twice`, `Leaves`.
    pub fn new(shape: Shape, slots: Vec<SlotEntry>) -> Result<Self, SetError> {
        if slots.is_empty() || slots.len() > shape.slots_max() {
            return Err(SetError::Slots { max: shape.slots_max(), found: slots.len() });
        }
        let mut seen = BTreeSet::new();
        for (index, slot) in slots.iter().enumerate() {
            if slot.leaves == 0 || slot.leaves > SLOT_LEAVES_MAX {
                return Err(SetError::Leaves(index));
            }
            if !seen.insert(slot.root.to_bytes()) {
                return Err(SetError::Twice(index));
            }
        }
        let mut empty = vec![EMPTY];
        let mut level: Vec<Child> =
            slots.iter().map(|slot| Child { hash: slot.root.0, leaves: slot.leaves }).collect();
        let mut levels = Vec::with_capacity(usize::from(shape.set_depth()) + 1);
        for _ in 0..shape.set_depth() {
            let nothing = empty.last().copied().unwrap_or(EMPTY);
            let above = level.chunks(ARITY).map(|children| node(&family(children, nothing))).collect();
            levels.push(std::mem::replace(&mut level, above));
            empty.push(node(&[nothing; ARITY]));
        }
        levels.push(level);
        Ok(Self { shape, slots, levels, empty })
    }

    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    #[must_use]
    pub fn slots(&self) -> &[SlotEntry] {
        &self.slots
    }

    #[must_use]
    pub fn root(&self) -> SetRoot {
        SetRoot(self.top().hash)
    }

    /// Leaves that draws fall on.
    #[must_use]
    pub fn leaves(&self) -> u64 {
        self.top().leaves
    }

    fn top(&self) -> Child {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or(EMPTY)
    }

    /// The slot that holds a leaf of the set, and which of the slot's it is.
    pub(crate) fn locate(&self, leaf: u64) -> Option<(usize, u64)> {
        let mut rest = leaf;
        let slot = self.slots.iter().position(|slot| match rest.checked_sub(slot.leaves) {
            Some(behind) => {
                rest = behind;
                false
            }
            None => true,
        })?;
        Some((slot, rest))
    }

    /// The families on the way from the root down to a slot.
    pub(crate) fn families(&self, slot: usize) -> Vec<Family> {
        let below = self.levels.iter().zip(&self.empty).enumerate().rev().skip(1);
        below
            .map(|(level, (nodes, nothing))| {
                let parent = slot >> (3 * (level + 1));
                family(nodes.chunks(ARITY).nth(parent).unwrap_or_default(), *nothing)
            })
            .collect()
    }

    /// What convinces someone who knows the root alone that slot `slot` is in the set.
    #[must_use]
    pub fn path(&self, slot: usize) -> Option<SetPath> {
        (slot < self.slots.len()).then(|| SetPath { slot: slot as u64, families: self.families(slot) })
    }
}

fn family(children: &[Child], nothing: Child) -> Family {
    let mut out = [nothing; ARITY];
    for (place, child) in out.iter_mut().zip(children) {
        *place = *child;
    }
    out
}

/// The leaves of a set that are one slot's: an audit of c draws misses them all with
/// (1 - leaves / total)^c.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotShare {
    pub first: u64,
    pub leaves: u64,
    pub total: u64,
}

/// That a slot stands in a set, shown to someone who has only the set's root.
///
/// ```text
/// DAG-CBOR [1, slot, families]: from the root downward, eight children each, 32 bytes of hash and the
/// number of leaves as u64 BE
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetPath {
    slot: u64,
    families: Vec<Family>,
}

#[derive(Serialize, Deserialize)]
struct Wire(u8, u64, ByteBuf);

impl SetPath {
    /// The path's bytes.
    ///
    /// # Errors
    /// None in practice: byte strings in memory always encode.
    pub fn encode(&self) -> Result<Vec<u8>, SetError> {
        let mut nodes = Vec::with_capacity(self.families.len() * ARITY * CHILD_LEN);
        for child in self.families.iter().flatten() {
            nodes.extend_from_slice(&to_node(&child.hash));
            nodes.extend_from_slice(&child.leaves.to_be_bytes());
        }
        serde_ipld_dagcbor::to_vec(&Wire(PATH_VERSION, self.slot, ByteBuf::from(nodes)))
            .map_err(|_| SetError::Malformed)
    }

    /// Reads a path from untrusted bytes.
    ///
    /// # Errors
    /// `Newer` or `Malformed`; a path has one spelling.
    pub fn decode(bytes: &[u8]) -> Result<Self, SetError> {
        if bytes.len() > PATH_BYTES_MAX {
            return Err(SetError::Malformed);
        }
        if let [0x83, version @ 2..=23, ..] = bytes {
            return Err(SetError::Newer(*version));
        }
        let Wire(version, slot, nodes) =
            serde_ipld_dagcbor::from_slice(bytes).map_err(|_| SetError::Malformed)?;
        let (families, []) = nodes.as_chunks::<{ ARITY * CHILD_LEN }>() else {
            return Err(SetError::Malformed);
        };
        let families = families.iter().map(read_family).collect::<Option<_>>().ok_or(SetError::Malformed)?;
        let path = Self { slot, families };
        if version != PATH_VERSION || path.encode()? != bytes {
            return Err(SetError::Malformed);
        }
        Ok(path)
    }

    /// Accepts the path only if it leads from `slot` to `root` in a tree of `shape`.
    ///
    /// # Errors
    /// `Root`, or `Sum` where a node claims another number of leaves than its children have.
    pub fn verify(&self, shape: Shape, root: &SetRoot, slot: &SlotEntry) -> Result<SlotShare, SetError> {
        if self.families.len() != usize::from(shape.set_depth()) || self.slot >= shape.slots_max() as u64 {
            return Err(SetError::Malformed);
        }
        let mut expected = Child { hash: root.0, leaves: 0 };
        let (mut first, mut total) = (0, 0);
        for (depth, family) in self.families.iter().enumerate() {
            let sum = family.iter().try_fold(0_u64, |sum, child| sum.checked_add(child.leaves));
            let sum = sum.filter(|sum| *sum < 1 << COUNT_BITS).ok_or(SetError::Sum)?;
            if depth == 0 {
                total = sum;
            } else if sum != expected.leaves {
                return Err(SetError::Sum);
            }
            if node(family).hash != expected.hash {
                return Err(SetError::Root);
            }
            let digit = (self.slot >> (3 * (self.families.len() - 1 - depth))) % ARITY as u64;
            let (before, from) = family.split_at_checked(digit as usize).ok_or(SetError::Malformed)?;
            first += before.iter().map(|child| child.leaves).sum::<u64>();
            expected = *from.first().ok_or(SetError::Malformed)?;
        }
        if expected != (Child { hash: slot.root.0, leaves: slot.leaves }) {
            return Err(SetError::Root);
        }
        Ok(SlotShare { first, leaves: slot.leaves, total })
    }
}

fn read_family(bytes: &[u8; ARITY * CHILD_LEN]) -> Option<Family> {
    let mut out = [EMPTY; ARITY];
    for (place, bytes) in out.iter_mut().zip(bytes.as_chunks::<CHILD_LEN>().0) {
        let (hash, leaves) = bytes.split_first_chunk::<32>()?;
        *place = Child { hash: from_node(hash)?, leaves: u64::from_be_bytes(*leaves.first_chunk()?) };
    }
    Some(out)
}

#[cfg(test)]
mod tests;
