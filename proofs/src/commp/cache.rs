//! The tree cache: some levels of a piece's tree on disk, so that a proof reads kilobytes.
//!
//! Owns the file's bytes. Promises: its size follows from the payload's length and the level alone
//! (`TreeCache::file_len`); any damage is a typed error before a proof leaves, because whoever reads
//! goes from the root downward and checks each group of nodes against its parent; the file can always
//! be made again from the payload. Refuses: a file of another piece, level, length or version.
//!
//! ```text
//! 0        version 1 | suite 1 | "HFTC" | level L | stride 7 | 24 zeros
//! 32       nodes of level L:      ceil(leaves / 2^L) x 32 bytes
//!          nodes of level L + 7, L + 14, ... while not above the root
//! end-96   payload length u64 LE | root 32 | 24 zeros | SHA-256 of the preamble and these 64 bytes
//! ```
//!
//! A challenge costs one read of 2^L leaves of payload and one of at most 2^7 nodes (4 KiB, a page)
//! for each stored level. Storing every seventh level instead of all costs at most 127 pairs of hashing
//! a group and saves half the file.

use std::io;

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::cid::PieceCid;
use super::node::Node;
use crate::read_at::ReadAt;

/// Levels between stored levels (suite 1): a group of 2^7 nodes is one page.
const CACHE_STRIDE: u8 = 7;
const VERSION: u8 = 1;
const SUITE: u8 = 1;
const MAGIC: [u8; 4] = *b"HFTC";
const PREAMBLE_LEN: u64 = 32;
const TRAILER_LEN: u64 = 96;
const NODE_LEN: u64 = 32;

/// Why a cache file is of no use; the payload can make a new one in each case but `Io`.
#[derive(Debug, Error)]
pub enum CacheError {
    #[error("the tree cache cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("the tree cache has {found} bytes where {expected} belong")]
    Length { expected: u64, found: u64 },
    #[error("not a tree cache, or a damaged one")]
    Header,
    #[error("the tree cache is of version {version}, suite {suite}: newer than this program")]
    Newer { version: u8, suite: u8 },
    #[error("the tree cache belongs to another piece")]
    OtherPiece,
    #[error("the tree cache is damaged: level {level}, nodes from {first} do not hash to their parent")]
    Damaged { level: u8, first: u64 },
}

impl CacheError {
    /// Whether making the cache again from the payload is the remedy.
    #[must_use]
    pub fn needs_rebuild(&self) -> bool {
        !matches!(self, Self::Io(_))
    }
}

/// The lowest stored level: the trade of space against bytes read for a challenge.
///
/// | level | cache, share of the piece | payload read for one challenge |
/// |---|---|---|
/// | 5 | 3.1 % | 1 KiB |
/// | 7 | 0.8 % | 4 KiB |
/// | 10 | 0.1 % | 32 KiB |
/// | 16 | 0.0016 % | 2 MiB |
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TreeLevel(u8);

impl TreeLevel {
    pub const MIN: Self = Self(5);
    pub const MAX: Self = Self(16);
    /// 512 KiB of cache for a slot of 64 MiB, 258 MiB for one of 32 GiB.
    pub const DEFAULT: Self = Self(7);

    /// The level, where it is allowed.
    #[must_use]
    pub fn new(level: u8) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0).contains(&level).then_some(Self(level))
    }

    /// The fastest level whose file for this payload is at most `bytes_max`; `MAX` where none is.
    #[must_use]
    pub fn within(payload_len: u64, bytes_max: u64) -> Self {
        (Self::MIN.0..=Self::MAX.0)
            .map(Self)
            .find(|level| level.file_len(payload_len) <= bytes_max)
            .unwrap_or(Self::MAX)
    }

    /// Exact bytes of the cache file of a payload of this length.
    #[must_use]
    pub fn file_len(self, payload_len: u64) -> u64 {
        let shape = Shape::new(self, payload_len);
        PREAMBLE_LEN + shape.nodes() * NODE_LEN + TRAILER_LEN
    }

    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for TreeLevel {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Where each stored level lies.
#[derive(Debug, Clone, Copy)]
struct Shape {
    lowest: u8,
    height: u8,
    leaves: u64,
}

impl Shape {
    fn new(level: TreeLevel, payload_len: u64) -> Self {
        let height = PieceCid::height_of(payload_len);
        Self { lowest: level.0, height, leaves: super::fr32::leaf_count(payload_len) }
    }

    fn levels(self) -> impl DoubleEndedIterator<Item = u8> {
        // An empty payload has no nodes at all, and no level worth an entry.
        let top = if self.leaves == 0 { 0 } else { self.height };
        (self.lowest..=top).step_by(usize::from(CACHE_STRIDE))
    }

    fn nodes_at(self, level: u8) -> u64 {
        self.leaves.div_ceil(1 << level)
    }

    fn nodes(self) -> u64 {
        self.levels().map(|level| self.nodes_at(level)).sum()
    }

    fn offset(self, level: u8, index: u64) -> u64 {
        let below: u64 = self.levels().take_while(|l| *l < level).map(|l| self.nodes_at(l)).sum();
        PREAMBLE_LEN + (below + index) * NODE_LEN
    }
}

fn preamble(level: u8) -> [u8; PREAMBLE_LEN as usize] {
    let mut out = [0; PREAMBLE_LEN as usize];
    out[..2].copy_from_slice(&[VERSION, SUITE]);
    out[2..6].copy_from_slice(&MAGIC);
    out[6..8].copy_from_slice(&[level, CACHE_STRIDE]);
    out
}

fn trailer(level: u8, piece: &PieceCid) -> [u8; TRAILER_LEN as usize] {
    let mut out = [0; TRAILER_LEN as usize];
    out[..8].copy_from_slice(&piece.payload_len().to_le_bytes());
    out[8..40].copy_from_slice(piece.root());
    let check = Sha256::new().chain_update(preamble(level)).chain_update(&out[..64]).finalize();
    out[64..].copy_from_slice(&check);
    out
}

/// Gathers stored levels in the order of the file while a hasher goes on.
pub(super) struct CacheBuilder {
    level: u8,
    ready: Vec<u8>,
    /// The levels above the lowest, 1/127 of it together; they follow when it is complete.
    upper: Vec<Vec<u8>>,
}

impl CacheBuilder {
    pub(super) fn new(level: TreeLevel) -> Self {
        Self { level: level.0, ready: preamble(level.0).to_vec(), upper: Vec::new() }
    }

    pub(super) fn lowest(&self) -> u8 {
        self.level
    }

    /// Takes the next nodes of a level; levels that are not stored are passed over.
    pub(super) fn record(&mut self, level: u8, nodes: &[Node]) {
        let Some(above) = level.checked_sub(self.level) else { return };
        if !above.is_multiple_of(CACHE_STRIDE) {
            return;
        }
        let bytes = nodes.as_flattened();
        let Some(slot) = usize::from(above / CACHE_STRIDE).checked_sub(1) else {
            self.ready.extend_from_slice(bytes);
            return;
        };
        if self.upper.len() <= slot {
            self.upper.resize_with(slot + 1, Vec::new);
        }
        self.upper[slot].extend_from_slice(bytes);
    }

    /// The stored levels above the lowest, up to `top`.
    pub(super) fn upper_levels(lowest: u8, top: u8) -> impl Iterator<Item = u8> {
        (lowest..=top).step_by(usize::from(CACHE_STRIDE)).skip(1)
    }

    pub(super) fn upper_bytes(&self) -> Vec<u8> {
        self.upper.concat()
    }

    /// Takes back what `upper_bytes` gave of a level.
    pub(super) fn resume_upper(&mut self, level: u8, nodes: &[u8]) {
        if !nodes.is_empty() {
            self.record(level, nodes.as_chunks::<32>().0);
        }
    }

    /// Bytes of the file that precede its upper levels once this many leaves are complete.
    pub(super) fn ready_len(&self, leaves: u64) -> u64 {
        PREAMBLE_LEN + (leaves >> self.level) * NODE_LEN
    }

    pub(super) fn drain(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ready)
    }

    pub(super) fn finish(mut self, piece: &PieceCid) -> Vec<u8> {
        for level in self.upper {
            self.ready.extend_from_slice(&level);
        }
        self.ready.extend_from_slice(&trailer(self.level, piece));
        self.ready
    }
}

/// An opened cache file of one piece.
pub struct TreeCache<R> {
    file: R,
    shape: Shape,
    piece: PieceCid,
}

impl<R: ReadAt> TreeCache<R> {
    /// Opens the cache of `piece`: two small reads.
    ///
    /// # Errors
    /// Where the file is not whole, or not of this piece; nodes are checked when they are used.
    pub fn open(file: R, piece: &PieceCid) -> Result<Self, CacheError> {
        let found = file.size()?;
        let mut head = [0; PREAMBLE_LEN as usize];
        if found < PREAMBLE_LEN + TRAILER_LEN {
            return Err(CacheError::Length { expected: PREAMBLE_LEN + TRAILER_LEN, found });
        }
        file.read_exact_at(0, &mut head)?;
        if head[2..6] != MAGIC {
            return Err(CacheError::Header);
        }
        if (head[0], head[1]) != (VERSION, SUITE) {
            return Err(CacheError::Newer { version: head[0], suite: head[1] });
        }
        let level = TreeLevel::new(head[6]).ok_or(CacheError::Header)?;
        if head != preamble(level.0) {
            return Err(CacheError::Header);
        }
        let expected = level.file_len(piece.payload_len());
        if found != expected {
            return Err(CacheError::Length { expected, found });
        }
        let mut tail = [0; TRAILER_LEN as usize];
        file.read_exact_at(found - TRAILER_LEN, &mut tail)?;
        let check = Sha256::new().chain_update(head).chain_update(&tail[..64]).finalize();
        if tail[64..] != check[..] {
            return Err(CacheError::Header);
        }
        if tail != trailer(level.0, piece) {
            return Err(CacheError::OtherPiece);
        }
        Ok(Self { file, shape: Shape::new(level, piece.payload_len()), piece: *piece })
    }

    /// The piece that this is the tree of.
    #[must_use]
    pub fn piece(&self) -> &PieceCid {
        &self.piece
    }

    /// The lowest stored level.
    #[must_use]
    pub fn level(&self) -> u8 {
        self.shape.lowest
    }

    /// Stored levels, from the top down.
    pub(crate) fn levels_down(&self) -> impl Iterator<Item = u8> {
        self.shape.levels().rev()
    }

    /// The nodes of a stored level that lie under node `parent`, `span` levels higher; nodes beyond
    /// the data are not stored and not returned.
    pub(crate) fn group(&self, level: u8, parent: u64, span: u8) -> Result<Vec<Node>, CacheError> {
        let first = parent << span;
        let count = self.shape.nodes_at(level).saturating_sub(first).min(1 << span);
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut nodes = vec![[0_u8; 32]; usize::try_from(count).map_err(|_| CacheError::Header)?];
        self.file.read_exact_at(self.shape.offset(level, first), nodes.as_flattened_mut())?;
        Ok(nodes)
    }
}

#[cfg(test)]
mod tests;
