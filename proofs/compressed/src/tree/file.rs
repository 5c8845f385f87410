//! The tree's file: its levels from a chosen one upward, so that an opening reads kilobytes.
//!
//! Promises: the size follows from the payload's length and the level; whoever reads goes from the root
//! downward and checks every group against its parent, so a damaged or planted file is an error and
//! never a proof; the file can always be made again from the payload. Refuses: a file of another slot,
//! level, length or version.
//!
//! ```text
//! 0        version 1 | suite 1 | "HFPT" | level L | height 8 | 24 zeros
//! 32       nodes of level L: ceil(leaves / 8^L) x 32 bytes, then of L + 1, … up to 7;
//!          the root is the commitment's
//! end-128  piece root 32 | payload length u64 LE | 24 zeros | tree root 32 | SHA-256 of the first 32
//!          bytes and of these 96
//! ```

use holdfast_proofs::{PieceCid, ReadAt};
use sha2::{Digest, Sha256};

use super::{SLOT_HEIGHT, SlotCommitment, TreeError, width};
use crate::field::{ARITY, Fr, from_node, to_node};

const VERSION: u8 = 1;
const SUITE: u8 = 1;
const MAGIC: [u8; 4] = *b"HFPT";
const PREAMBLE_LEN: u64 = 32;
const TRAILER_LEN: u64 = 128;
const NODE_LEN: u64 = 32;

/// The lowest stored level: the trade of space against time for an opening.
///
/// | level | file, share of the slot | payload read and hashes for an opening below it |
/// |---|---|---|
/// | 1 | 14 % | 256 bytes, 1 |
/// | 2 | 1.8 % | 2 KiB, 9 |
/// | 3 | 0.22 % | 16 KiB, 73 |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredLevel(u8);

impl StoredLevel {
    pub const MIN: Self = Self(1);
    pub const MAX: Self = Self(3);
    /// 1.2 MiB for a slot of 64 MiB.
    pub const DEFAULT: Self = Self(2);

    /// The level, where it is allowed.
    #[must_use]
    pub fn new(level: u8) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0).contains(&level).then_some(Self(level))
    }

    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }

    /// Exact bytes of the file of a slot of this length; lengths that no tree has room for have none.
    #[must_use]
    pub fn file_len(self, payload_len: u64) -> u64 {
        let leaves = holdfast_proofs::commp::leaf_count(payload_len);
        offset(self.0, leaves, SLOT_HEIGHT, 0) + TRAILER_LEN
    }
}

/// Where a node of a stored level lies.
fn offset(lowest: u8, leaves: u64, level: u8, index: u64) -> u64 {
    let below: u64 = (lowest..level).map(|level| width(leaves, level)).sum();
    PREAMBLE_LEN + (below + index) * NODE_LEN
}

fn preamble(level: u8) -> [u8; PREAMBLE_LEN as usize] {
    let mut out = [0; PREAMBLE_LEN as usize];
    out[..2].copy_from_slice(&[VERSION, SUITE]);
    out[2..6].copy_from_slice(&MAGIC);
    out[6..8].copy_from_slice(&[level, SLOT_HEIGHT]);
    out
}

fn trailer(level: u8, slot: &SlotCommitment) -> [u8; TRAILER_LEN as usize] {
    let mut out = [0; TRAILER_LEN as usize];
    out[..32].copy_from_slice(slot.piece().root());
    out[32..40].copy_from_slice(&slot.piece().payload_len().to_le_bytes());
    out[64..96].copy_from_slice(&slot.root().to_bytes());
    let check = Sha256::new().chain_update(preamble(level)).chain_update(&out[..96]).finalize();
    out[96..].copy_from_slice(&check);
    out
}

/// Gathers stored levels in the order of the file while a builder goes on.
pub(super) struct FileBuilder {
    lowest: u8,
    ready: Vec<u8>,
    /// The levels above the lowest; they follow when it is complete.
    upper: Vec<Vec<u8>>,
}

impl FileBuilder {
    pub(super) fn new(level: StoredLevel) -> Self {
        let upper = vec![Vec::new(); usize::from(SLOT_HEIGHT - 1 - level.0)];
        Self { lowest: level.0, ready: preamble(level.0).to_vec(), upper }
    }

    /// Takes the next nodes of a level; those of lower ones, and the root, are passed over.
    pub(super) fn record(&mut self, level: u8, nodes: &[Fr]) {
        let to = match level.checked_sub(self.lowest) {
            None => return,
            Some(0) => &mut self.ready,
            Some(above) => match self.upper.get_mut(usize::from(above - 1)) {
                Some(upper) => upper,
                None => return,
            },
        };
        for node in nodes {
            to.extend_from_slice(&to_node(node));
        }
    }

    pub(super) fn drain(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ready)
    }

    pub(super) fn finish(mut self, slot: &SlotCommitment) -> Vec<u8> {
        for level in self.upper {
            self.ready.extend_from_slice(&level);
        }
        self.ready.extend_from_slice(&trailer(self.lowest, slot));
        self.ready
    }
}

/// An opened tree file of one slot.
pub struct SlotTree<R> {
    file: R,
    lowest: u8,
    slot: SlotCommitment,
}

impl<R: ReadAt> SlotTree<R> {
    /// Opens the tree of `slot`: two small reads.
    ///
    /// # Errors
    /// Where the file is not whole, or not of this slot; nodes are checked when they are used.
    pub fn open(file: R, slot: &SlotCommitment) -> Result<Self, TreeError> {
        let found = file.size()?;
        if found < PREAMBLE_LEN + TRAILER_LEN {
            return Err(TreeError::FileLength { expected: PREAMBLE_LEN + TRAILER_LEN, found });
        }
        let mut head = [0; PREAMBLE_LEN as usize];
        file.read_exact_at(0, &mut head)?;
        if head[2..6] != MAGIC {
            return Err(TreeError::Header);
        }
        if (head[0], head[1]) != (VERSION, SUITE) {
            return Err(TreeError::Newer { version: head[0], suite: head[1] });
        }
        let level = StoredLevel::new(head[6]).ok_or(TreeError::Header)?;
        if head != preamble(level.0) {
            return Err(TreeError::Header);
        }
        let expected = level.file_len(slot.piece().payload_len());
        if found != expected {
            return Err(TreeError::FileLength { expected, found });
        }
        let mut tail = [0; TRAILER_LEN as usize];
        file.read_exact_at(found - TRAILER_LEN, &mut tail)?;
        let check = Sha256::new().chain_update(head).chain_update(&tail[..96]).finalize();
        if tail[96..] != check[..] {
            return Err(TreeError::Header);
        }
        if tail != trailer(level.0, slot) {
            return Err(TreeError::OtherSlot);
        }
        Ok(Self { file, lowest: level.0, slot: *slot })
    }

    /// What this is the tree of.
    #[must_use]
    pub fn slot(&self) -> &SlotCommitment {
        &self.slot
    }

    #[must_use]
    pub fn piece(&self) -> &PieceCid {
        self.slot.piece()
    }

    /// The lowest stored level.
    #[must_use]
    pub fn level(&self) -> u8 {
        self.lowest
    }

    /// The children of node `parent` of level `level + 1`, without the zeros beyond the data. Unchecked.
    pub(super) fn group(&self, level: u8, parent: u64) -> Result<Vec<Fr>, TreeError> {
        let leaves = self.slot.piece().leaf_count();
        let first = parent * ARITY as u64;
        let count = width(leaves, level).saturating_sub(first).min(ARITY as u64);
        let mut nodes = vec![[0_u8; 32]; usize::try_from(count).unwrap_or(ARITY)];
        let at = offset(self.lowest, leaves, level, first);
        self.file.read_exact_at(at, nodes.as_flattened_mut())?;
        let damaged = TreeError::Damaged { level, group: parent };
        nodes.iter().map(from_node).collect::<Option<_>>().ok_or(damaged)
    }
}
