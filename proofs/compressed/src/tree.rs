//! The Poseidon tree over a slot's leaves: what the provider commits to when it takes a slot.
//!
//! ```text
//! leaf     a fr32 leaf of the slot (254 bits), the same 32 bytes as in its SHA-256 tree, as a number
//! node     Poseidon of eight children
//! height   always 8: 2^24 leaves, 532,676,608 payload bytes; what is missing is zero
//! ```
//!
//! The zeros are virtual, as in the piece's own tree: a subtree of zeros is a constant of its level. So
//! short slots cost no more than their bytes, every slot fits the same circuit, and the root follows from the payload alone.
//! The root does not bind the length; the piece CID beside it does (`SlotCommitment`).

mod builder;
mod file;
mod multi;
mod open;

use std::fmt;
use std::sync::OnceLock;

use ff::Field;
use holdfast_proofs::PieceCid;
use holdfast_proofs::commp::Node;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use thiserror::Error;

use crate::field::{ARITY, Fr, from_node, hash8, to_node};

pub use builder::SlotTreeBuilder;
pub use file::{SlotTree, StoredLevel};
pub(crate) use multi::{leads_to_root, siblings};
pub(crate) use open::Opened;

/// Levels above the leaves, of every slot.
pub const SLOT_HEIGHT: u8 = 8;
/// Leaves that a slot's tree has room for.
pub const SLOT_LEAVES_MAX: u64 = 1 << (3 * SLOT_HEIGHT);
/// Payload bytes that a slot's tree has room for.
pub const SLOT_PAYLOAD_MAX: u64 = SLOT_LEAVES_MAX / 4 * 127;

/// Why a tree is of no use here.
#[derive(Debug, Error)]
pub enum TreeError {
    #[error("a slot of {0} bytes has no compressed proof: 1 to {SLOT_PAYLOAD_MAX} bytes have")]
    Length(u64),
    #[error("the tree was built over {built} bytes, the piece has {piece}")]
    OtherLength { built: u64, piece: u64 },
    #[error("a root is a number below the field's modulus")]
    Root,
    #[error("the slot tree cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("the slot tree has {found} bytes where {expected} belong")]
    FileLength { expected: u64, found: u64 },
    #[error("not a slot tree, or a damaged one")]
    Header,
    #[error("the slot tree is of version {version}, suite {suite}: newer than this program")]
    Newer { version: u8, suite: u8 },
    #[error("the slot tree belongs to another slot")]
    OtherSlot,
    #[error("the slot tree is damaged: the group {group} of level {level} does not hash to its parent")]
    Damaged { level: u8, group: u64 },
    /// The slot's bytes are lost here, at least in these leaves.
    #[error("the slot's leaves {first} to {end} are not those of its tree")]
    PayloadDamaged { first: u64, end: u64 },
    #[error("leaf {0} is beyond the slot's data")]
    Position(u64),
}

impl TreeError {
    /// Whether building the tree again from the payload is the remedy.
    #[must_use]
    pub fn needs_rebuild(&self) -> bool {
        matches!(
            self,
            Self::FileLength { .. }
                | Self::Header
                | Self::Newer { .. }
                | Self::OtherSlot
                | Self::Damaged { .. }
        )
    }
}

/// Root of a slot's Poseidon tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TreeRoot(pub(crate) Fr);

impl TreeRoot {
    /// 32 bytes, little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        to_node(&self.0)
    }

    /// Reads a root.
    ///
    /// # Errors
    /// `Root` where the bytes are not below the modulus: a root has one spelling.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, TreeError> {
        from_node(bytes).map(Self).ok_or(TreeError::Root)
    }
}

impl fmt::Display for TreeRoot {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.to_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TreeRoot {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a provider signs when it takes a slot: that this root is over this piece's leaves. Until it has
/// been checked (`check_binding`) it is a claim.
///
/// As bytes: DAG-CBOR `[piece CID, root]`, the root as 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct SlotCommitment {
    piece: PieceCid,
    root: TreeRoot,
}

#[derive(Serialize, Deserialize)]
struct Wire(PieceCid, ByteArray<32>);

impl TryFrom<Wire> for SlotCommitment {
    type Error = TreeError;

    fn try_from(Wire(piece, root): Wire) -> Result<Self, TreeError> {
        Self::new(piece, TreeRoot::from_bytes(&root)?)
    }
}

impl From<SlotCommitment> for Wire {
    fn from(slot: SlotCommitment) -> Self {
        Self(slot.piece, ByteArray::new(slot.root.to_bytes()))
    }
}

impl SlotCommitment {
    /// A claim about a piece that a slot tree has room for.
    ///
    /// # Errors
    /// `Length` where the piece is empty or too long.
    pub fn new(piece: PieceCid, root: TreeRoot) -> Result<Self, TreeError> {
        let len = piece.payload_len();
        if len == 0 || len > SLOT_PAYLOAD_MAX {
            return Err(TreeError::Length(len));
        }
        Ok(Self { piece, root })
    }

    #[must_use]
    pub fn piece(&self) -> &PieceCid {
        &self.piece
    }

    #[must_use]
    pub fn root(&self) -> &TreeRoot {
        &self.root
    }
}

/// Root of a subtree of zeros, `level` above the leaves.
pub(crate) fn zero_root(level: u8) -> Fr {
    static ZEROS: OnceLock<[Fr; SLOT_HEIGHT as usize + 1]> = OnceLock::new();
    let zeros = ZEROS.get_or_init(|| {
        let mut next = Fr::ZERO;
        std::array::from_fn(|_| {
            let root = next;
            next = hash8(&[root; ARITY]);
            root
        })
    });
    zeros[usize::from(level.min(SLOT_HEIGHT))]
}

/// Nodes of a level that have data under them.
pub(crate) fn width(leaves: u64, level: u8) -> u64 {
    leaves.div_ceil(1 << (3 * level))
}

/// Payload as field elements, the last short quad completed with zeros.
fn elements(payload: &[u8]) -> Vec<Fr> {
    // A leaf has 254 bits and the modulus more: every leaf is an element.
    holdfast_proofs::commp::leaves_of(payload).iter().map(element).collect()
}

fn element(leaf: &Node) -> Fr {
    from_node(leaf).unwrap_or_default()
}

#[cfg(test)]
mod tests;
