//! How pieces lie in a sector, and the commitment that follows from it.
//!
//! ```text
//! | piece 0        | piece 1 | 0 | piece 2        | zeros ...           |   each at a multiple of its own
//!                            gap                                            padded length (a power of two)
//! ```
//!
//! So every piece is a subtree of the sector's tree, and the sector's data commitment follows from roots and
//! heights alone. Promises: positions never move once given; the commitment is that of `filecoin-proofs` (the
//! tests compare). What lies between and behind pieces is zeros.

use filecoin_proofs::{PaddedBytesAmount, PieceInfo, UnpaddedBytesAmount};
use holdfast_proofs::PieceCid;
use holdfast_proofs::commp::{Node, hash_pair, zero_node};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::profile::Profile;
use crate::types::Bytes32;

/// Bytes of a leaf.
const LEAF: u64 = 32;

/// Why a piece does not go into a sector.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PackingError {
    #[error("a piece of {padded} bytes (padded) does not fit: {free} are free at its alignment")]
    Full { padded: u64, free: u64 },
    #[error("the piece is empty")]
    Empty,
    #[error("the height {0} is none that a piece of this sector can have")]
    Height(u8),
    #[error("the piece's root has bits above 254")]
    Root,
}

/// What a sector's commitment knows of a piece: not its exact length, which only its CID binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceRoot {
    pub root: Bytes32,
    /// Levels above the leaves.
    pub height: u8,
}

impl PieceRoot {
    #[must_use]
    pub fn of(piece: &PieceCid) -> Self {
        Self { root: Bytes32(*piece.root()), height: piece.height() }
    }

    /// Whether this is the root that a piece CID names (the exact length is the CID's own word).
    #[must_use]
    pub fn is_of(&self, piece: &PieceCid) -> bool {
        *self == Self::of(piece)
    }

    fn padded_len(&self) -> u64 {
        LEAF << self.height
    }
}

/// A run of the sector's tree: a piece, or zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    height: u8,
    root: Node,
}

/// The pieces of a sector in their order, and where each begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    profile: Profile,
    pieces: Vec<(PieceRoot, u64)>,
    /// Where the last piece ends, in padded bytes.
    end: u64,
}

impl Layout {
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self { profile, pieces: Vec::new(), end: 0 }
    }

    /// The layout of these pieces, placed one after the other.
    ///
    /// # Errors
    /// As `push`.
    pub fn of(profile: Profile, pieces: impl IntoIterator<Item = PieceRoot>) -> Result<Self, PackingError> {
        let mut layout = Self::new(profile);
        for piece in pieces {
            layout.push(piece)?;
        }
        Ok(layout)
    }

    /// Where a piece would begin, in padded bytes.
    fn place(&self, piece: PieceRoot) -> Result<u64, PackingError> {
        let sector = self.profile.sector_bytes();
        if piece.height < holdfast_proofs::commp::HEIGHT_MIN || piece.height >= 64 - 5 {
            return Err(PackingError::Height(piece.height));
        }
        if piece.root.0[31] & 0xc0 != 0 {
            return Err(PackingError::Root);
        }
        let padded = piece.padded_len();
        let offset = self.end.next_multiple_of(padded);
        match offset.checked_add(padded) {
            Some(end) if end <= sector => Ok(offset),
            _ => Err(PackingError::Full { padded, free: sector.saturating_sub(offset) }),
        }
    }

    #[must_use]
    pub fn fits(&self, piece: &PieceCid) -> bool {
        piece.payload_len() > 0 && self.place(PieceRoot::of(piece)).is_ok()
    }

    /// Places a piece behind the others; where it begins, in padded bytes.
    ///
    /// # Errors
    /// `Full`, `Height`, `Root`.
    pub fn push(&mut self, piece: PieceRoot) -> Result<u64, PackingError> {
        let offset = self.place(piece)?;
        self.end = offset + piece.padded_len();
        self.pieces.push((piece, offset));
        Ok(offset)
    }

    /// Each piece with the padded offset at which it begins.
    #[must_use]
    pub fn pieces(&self) -> &[(PieceRoot, u64)] {
        &self.pieces
    }

    /// Padded bytes up to the end of the last piece.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.end
    }

    /// Pieces and zeros, in order, that together are the whole sector.
    fn runs(&self) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut at = 0;
        for (piece, offset) in &self.pieces {
            fill(&mut runs, at, *offset);
            runs.push(Run { height: piece.height, root: piece.root.0 });
            at = offset + piece.padded_len();
        }
        fill(&mut runs, at, self.profile.sector_bytes());
        runs
    }

    /// The sector's data commitment (CommD).
    #[must_use]
    pub fn comm_d(&self) -> Bytes32 {
        let mut stack: Vec<Run> = Vec::new();
        for mut run in self.runs() {
            // Runs are aligned, so a neighbour of the same height is the left half of the same parent.
            while let Some(left) = stack.pop_if(|left| left.height == run.height) {
                run = Run { height: run.height + 1, root: hash_pair(&left.root, &run.root) };
            }
            stack.push(run);
        }
        Bytes32(stack.pop().map_or([0; 32], |run| run.root))
    }

    /// The same for the library, which compares it with its own tree.
    pub(crate) fn piece_infos(&self) -> Result<Vec<PieceInfo>, anyhow::Error> {
        self.runs()
            .into_iter()
            .map(|run| {
                let size = UnpaddedBytesAmount::from(PaddedBytesAmount(LEAF << run.height));
                PieceInfo::new(run.root, size)
            })
            .collect()
    }
}

/// Zeros from one offset to another, as the fewest aligned subtrees.
fn fill(runs: &mut Vec<Run>, mut at: u64, end: u64) {
    while at < end {
        let aligned = if at == 0 { u64::MAX } else { 1 << at.trailing_zeros() };
        let room = 1 << (end - at).ilog2();
        let size = aligned.min(room);
        let height = u8::try_from((size / LEAF).ilog2()).unwrap_or(u8::MAX);
        runs.push(Run { height, root: zero_node(height) });
        at += size;
    }
}

#[cfg(test)]
mod tests {
    use filecoin_proofs::{SectorSize, compute_comm_d};
    use holdfast_proofs::CommpHasher;
    use proptest::prelude::*;

    use super::*;

    fn piece(len: usize, fill: u8) -> PieceCid {
        let mut hasher = CommpHasher::new();
        hasher.update(&vec![fill; len]);
        hasher.finish()
    }

    proptest! {
        #[test]
        fn commitment_is_the_librarys(lens in proptest::collection::vec(1_usize..1_100, 0..8)) {
            let mut layout = Layout::new(Profile::Test2k);
            for (i, len) in lens.iter().enumerate() {
                let piece = piece(*len, i as u8 + 1);
                let fits = layout.fits(&piece);
                let before = layout.used_bytes();
                match layout.push(PieceRoot::of(&piece)) {
                    Ok(offset) => {
                        prop_assert!(fits && offset >= before && offset % piece.padded_len() == 0);
                    }
                    Err(error) => {
                        let is_full = matches!(error, PackingError::Full { .. });
                        prop_assert!(!fits && is_full);
                    }
                }
            }
            let size = SectorSize(Profile::Test2k.sector_bytes());
            let theirs = compute_comm_d(size, &layout.piece_infos().unwrap()).unwrap();
            prop_assert_eq!(layout.comm_d(), Bytes32(theirs));
        }
    }

    #[test]
    fn a_sector_without_pieces_commits_to_zeros() {
        for profile in Profile::ALL {
            let height = (profile.sector_bytes() / LEAF).ilog2() as u8;
            assert_eq!(Layout::new(profile).comm_d(), Bytes32(zero_node(height)));
        }
    }

    #[test]
    fn hostile_roots_are_refused() {
        let mut layout = Layout::new(Profile::Test2k);
        for height in [0, 1, 7, 58, 59, 64, 255] {
            assert!(layout.push(PieceRoot { root: Bytes32::default(), height }).is_err(), "{height}");
        }
        let root = Bytes32([0xff; 32]);
        assert_eq!(layout.push(PieceRoot { root, height: 2 }), Err(PackingError::Root));
        assert!(layout.pieces().is_empty());
        assert!(!layout.fits(&piece(0, 0)));
    }
}
