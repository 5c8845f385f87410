//! A slot's bytes: a piece under the keystream of the slot's seed, or a public piece as it is; and their piece CIDs.

use std::sync::Arc;

use holdfast_fs::drive::PieceFile;
use holdfast_net::PieceSource;
use holdfast_net::mask::{self, SlotSeed};
use holdfast_proofs::commp::CommpHasher;
use thiserror::Error;

use super::ledger::{PieceId, PieceRow};

/// Read and hashed at once; large enough for the hash's own batches, small enough to stay in the cache.
const STEP: usize = 256 << 10;

/// Why a slot could not be made.
#[derive(Debug, Error)]
pub enum SlotError {
    /// The piece's file could not be read.
    #[error("reading the piece: {0}")]
    Read(#[from] std::io::Error),
    /// The piece is longer than a piece CID can say.
    #[error(transparent)]
    Cid(#[from] holdfast_proofs::PieceCidError),
    /// The piece is longer than a mask can cover.
    #[error(transparent)]
    Mask(#[from] mask::MaskError),
}

/// Plain bytes of a piece, wherever they lie: the drive's own file, or one fetched for a repair.
pub trait PieceBytes: Send + Sync {
    /// Bytes in the piece.
    fn len(&self) -> u64;
    /// Fills `buf` from `offset`.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()>;
    /// A piece always has a header.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Whether there are bytes to be read.
    fn is_here(&self) -> bool {
        true
    }
}

/// A piece of so many bytes that nobody has here: for who has them already.
pub struct Elsewhere(pub u64);

impl PieceBytes for Elsewhere {
    fn len(&self) -> u64 {
        self.0
    }
    fn read_at(&self, _: u64, _: &mut [u8]) -> std::io::Result<()> {
        Err(std::io::Error::new(std::io::ErrorKind::NotFound, "the piece's bytes are not here"))
    }
    fn is_here(&self) -> bool {
        false
    }
}

impl PieceBytes for PieceFile {
    fn len(&self) -> u64 {
        PieceFile::len(self)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        PieceFile::read_at(self, offset, buf)
    }
}

/// What lies over a slot's bytes.
#[derive(Clone)]
pub enum Cover {
    /// The keystream of the slot's seed.
    Mask(SlotSeed),
    /// Nothing: the piece is public.
    Nothing,
}

impl Cover {
    /// Of one slot of a piece.
    pub fn of(mask_key: &[u8; 32], piece: PieceId, slot: u16, row: &PieceRow) -> Cover {
        match row.public {
            Some(_) => Cover::Nothing,
            None => Cover::Mask(seed(mask_key, piece, slot)),
        }
    }

    /// Puts it over bytes from `offset` on, or takes it away.
    pub fn apply(&self, offset: u64, bytes: &mut [u8]) -> Result<(), mask::MaskError> {
        match self {
            Cover::Mask(seed) => mask::apply(seed, offset, bytes),
            Cover::Nothing => Ok(()),
        }
    }
}

/// The view of a piece that is sent to a provider.
pub struct MaskedSlot {
    piece: Arc<dyn PieceBytes>,
    cover: Cover,
}

impl MaskedSlot {
    /// `piece` under what its slot wears.
    pub fn new(piece: Arc<dyn PieceBytes>, cover: Cover) -> Self {
        Self { piece, cover }
    }
}

impl PieceSource for MaskedSlot {
    fn len(&self) -> u64 {
        self.piece.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.piece.read_at(offset, buf)?;
        self.cover.apply(offset, buf).map_err(std::io::Error::other)
    }
}

/// The seed of one slot of a piece.
pub fn seed(mask_key: &[u8; 32], piece: PieceId, slot: u16) -> SlotSeed {
    mask::slot_seed(mask_key, piece, slot)
}

/// The piece CIDs of all slots, in one pass over the piece's bytes.
pub fn slot_cids(piece: &dyn PieceBytes, covers: &[Cover]) -> Result<Vec<cid::Cid>, SlotError> {
    let mut hashers: Vec<CommpHasher> = covers.iter().map(|_| CommpHasher::new()).collect();
    let mut plain = vec![0u8; STEP];
    let mut masked = vec![0u8; STEP];
    let mut offset = 0u64;
    while offset < piece.len() {
        let take = usize::try_from(piece.len() - offset).unwrap_or(STEP).min(STEP);
        let (plain, masked) = (&mut plain[..take], &mut masked[..take]);
        piece.read_at(offset, plain)?;
        for (hasher, cover) in hashers.iter_mut().zip(covers) {
            masked.copy_from_slice(plain);
            cover.apply(offset, masked)?;
            hasher.update(masked);
        }
        offset += take as u64;
    }
    hashers.into_iter().map(|h| Ok(h.finish().to_cid()?)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Mem(Vec<u8>);
    impl PieceBytes for Mem {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
            let from = offset as usize;
            buf.copy_from_slice(&self.0[from..from + buf.len()]);
            Ok(())
        }
    }

    #[test]
    fn slots_of_one_piece_differ_and_the_source_sends_what_was_hashed() {
        let plain: Vec<u8> = (0..700_001u32).map(|i| (i * 7) as u8).collect();
        let piece = Arc::new(Mem(plain));
        let row = PieceRow::new(700_001, 3);
        let seeds: Vec<_> = (0..3).map(|n| Cover::of(&[5; 32], [9; 16], n, &row)).collect();
        let cids = slot_cids(piece.as_ref(), &seeds).unwrap();
        assert!(cids[0] != cids[1] && cids[1] != cids[2] && cids[0] != cids[2]);
        for (seed, cid) in seeds.iter().zip(&cids) {
            let slot = MaskedSlot::new(piece.clone(), seed.clone());
            let mut bytes = vec![0; slot.len() as usize];
            // In odd steps: a range is masked as the whole is.
            for (n, part) in bytes.chunks_mut(77_777).enumerate() {
                slot.read_at((n * 77_777) as u64, part).unwrap();
            }
            let mut hasher = CommpHasher::new();
            hasher.update(&bytes);
            assert_eq!(&hasher.finish().to_cid().unwrap(), cid);
        }
        let public = Cover::of(&[5; 32], [9; 16], 1, &PieceRow::public(700_001, 3, Vec::new()));
        let mut bytes = vec![0; 700_001];
        MaskedSlot::new(piece.clone(), public.clone()).read_at(0, &mut bytes).unwrap();
        assert!(bytes == piece.0, "what is public is kept as it is");
        let mut hasher = CommpHasher::new();
        hasher.update(&bytes);
        assert_eq!(slot_cids(piece.as_ref(), &[public]).unwrap(), [hasher.finish().to_cid().unwrap()]);
    }
}
