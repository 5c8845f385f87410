//! Reading pieces: from the unsealed copy while it is there, from the replica otherwise.
//!
//! Unsealing works all layers of the whole sector again, whatever the range: the cost of pre-commit 1. So the whole piece is
//! unsealed and compared with its name, and a range of it is given: no byte that is not the piece's own comes out as one.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};

use filecoin_proofs::{MerkleTreeTrait, UnpaddedByteIndex, UnpaddedBytesAmount, unseal_range_mapped};
use holdfast_proofs::commp::leaves_of;
use holdfast_proofs::{CommpHasher, PieceCid};

use super::{Phase, SEALED, Sector, SectorError, UNSEALED};
use crate::durable;
use crate::profile::shaped;
use crate::workshop::Workshop;

const UNSEALING: &str = "unsealing";
/// Payload bytes of four leaves, and the leaves' bytes.
const QUAD: u64 = 127;
const QUAD_PADDED: u64 = 128;
/// Quads compressed at a time.
const CHUNK_QUADS: u64 = 8_192;

impl Sector {
    /// Writes a range of a piece's payload to `out`, from the unsealed copy if it is sound; whether it was unsealed. What was
    /// written before an error is worth nothing.
    ///
    /// # Errors
    /// `Range` outside the piece or where there is no such piece; `WrongPhase` where there is neither a packed
    /// copy nor a replica; `OtherPiece` where the replica does not give the piece back; `Workshop`, `Library`, `Io`.
    pub fn read_piece(
        &self,
        workshop: &Workshop,
        cid: &PieceCid,
        offset: u64,
        len: u64,
        out: &mut dyn Write,
    ) -> Result<bool, SectorError> {
        let outside = SectorError::Range { offset, len };
        let start = self.pieces().find(|(piece, _)| *piece == cid).map(|(_, start)| start);
        let Some(start) = start else { return Err(outside) };
        if offset.checked_add(len).is_none_or(|end| end > cid.payload_len()) {
            return Err(outside);
        }
        if self.check_unsealed() {
            let path = self.path(UNSEALED);
            copy_compressed(&path, start, offset, len, out).map_err(SectorError::io(&path))?;
            return Ok(false);
        }
        let mut whole = Named { out: Window { out, skip: offset, left: len }, hasher: CommpHasher::new() };
        // A piece begins at a multiple of four leaves, so its payload begins at that many times 127 bytes.
        self.unseal(workshop, start / QUAD_PADDED * QUAD, cid.payload_len(), &mut whole)?;
        let found = whole.hasher.finish();
        if found == *cid { Ok(true) } else { Err(SectorError::OtherPiece { expected: *cid, found }) }
    }

    /// Unseals a range of the sector's payload bytes.
    ///
    /// # Errors
    /// `Range`, `WrongPhase` before there is a replica, `Workshop`, `Library`, `Io`.
    pub fn unseal(
        &self,
        workshop: &Workshop,
        offset: u64,
        len: u64,
        out: &mut dyn Write,
    ) -> Result<(), SectorError> {
        if offset.checked_add(len).is_none_or(|end| end > self.journal.spec.profile.payload_bytes_max()) {
            return Err(SectorError::Range { offset, len });
        }
        workshop.enter()?;
        shaped!(self.journal.spec.profile, unseal(self, offset, len, out))
    }

    /// Makes a lost or damaged unsealed copy again from the replica, and enters its absence no longer.
    ///
    /// # Errors
    /// `WrongPhase` before there is a replica; `PieceDamaged` where the replica does not give the pieces back.
    pub fn restore_unsealed(&mut self, workshop: &Workshop) -> Result<(), SectorError> {
        let path = self.path(UNSEALED);
        let beside = durable::partial(&path);
        let file = File::create(&beside).map_err(SectorError::io(&beside))?;
        let mut expand = Expand { out: BufWriter::new(file), quad: Vec::new() };
        self.unseal(workshop, 0, self.journal.spec.profile.payload_bytes_max(), &mut expand)?;
        expand.flush().map_err(SectorError::io(&beside))?;
        expand.out.get_ref().sync_all().map_err(SectorError::io(&beside))?;
        let (bytes, sha256) = durable::sha256_file(&beside).map_err(SectorError::io(&beside))?;
        let packed = self.journal.finished.iter().find(|finished| finished.phase == Phase::Packed);
        let same = packed
            .and_then(|packed| packed.outputs.first())
            .is_some_and(|output| output.bytes == bytes && output.sha256.0 == sha256);
        if !same {
            durable::remove(&beside).map_err(SectorError::io(&beside))?;
            return Err(SectorError::Lost);
        }
        fs::rename(&beside, &path).map_err(SectorError::io(&path))?;
        durable::sync_dir(&self.dir).map_err(SectorError::io(&self.dir))?;
        self.journal.unsealed_dropped = false;
        self.journal.store(&self.dir)
    }
}

fn unseal<Tree: MerkleTreeTrait + 'static>(
    sector: &Sector,
    offset: u64,
    len: u64,
    out: &mut dyn Write,
) -> Result<(), SectorError> {
    let sealed = sector.replica_dir()?.join(SEALED);
    // The library writes layers under the data tree's name into the folder that it is given.
    let scratch = durable::partial(&sector.path(UNSEALING));
    durable::remove(&scratch).map_err(SectorError::io(&scratch))?;
    fs::create_dir(&scratch).map_err(SectorError::io(&scratch))?;
    let first = offset / QUAD * QUAD;
    let end = (offset + len).next_multiple_of(QUAD);
    let window = Window { out, skip: offset - first, left: len };
    let unsealed = unseal_range_mapped::<_, _, Tree>(
        &sector.config(),
        scratch.clone(),
        sealed,
        window,
        sector.journal.spec.prover.0,
        sector.library_id(),
        sector.layout()?.comm_d().0,
        sector.ticket_bytes()?,
        UnpaddedByteIndex(first),
        UnpaddedBytesAmount(end - first),
    )
    .map_err(SectorError::library("unseal"));
    durable::remove(&scratch).map_err(SectorError::io(&scratch))?;
    unsealed.map(drop)
}

/// Passes on a window of what is written to it.
struct Window<'a> {
    out: &'a mut dyn Write,
    skip: u64,
    left: u64,
}

impl Write for Window<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let skipped = self.skip.min(bytes.len() as u64);
        let wanted = self.left.min(bytes.len() as u64 - skipped);
        // Both are at most the slice's own length.
        let (from, to) = (skipped as usize, (skipped + wanted) as usize);
        self.out.write_all(bytes.get(from..to).unwrap_or_default())?;
        self.skip -= skipped;
        self.left -= wanted;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Names what passes.
struct Named<'a> {
    out: Window<'a>,
    hasher: CommpHasher,
}

impl Write for Named<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Expands payload to leaves as it comes.
struct Expand<W: Write> {
    out: W,
    quad: Vec<u8>,
}

impl<W: Write> Write for Expand<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.quad.extend_from_slice(bytes);
        let whole = self.quad.len() / QUAD as usize * QUAD as usize;
        let rest = self.quad.split_off(whole);
        self.out.write_all(leaves_of(&self.quad).as_flattened())?;
        self.quad = rest;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Copies a range of a piece's payload out of its leaves.
fn copy_compressed(
    path: &std::path::Path,
    piece_start: u64,
    offset: u64,
    len: u64,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut file = BufReader::new(File::open(path)?);
    let (first, end) = (offset / QUAD, (offset + len).div_ceil(QUAD));
    file.seek(SeekFrom::Start(piece_start + first * QUAD_PADDED))?;
    let mut window = Window { out, skip: offset - first * QUAD, left: len };
    let mut at = first;
    while at < end {
        let quads = (end - at).min(CHUNK_QUADS);
        let mut leaves = vec![0; usize::try_from(quads * QUAD_PADDED).map_err(io::Error::other)?];
        file.read_exact(&mut leaves)?;
        window.write_all(&compress(&leaves))?;
        at += quads;
    }
    Ok(())
}

/// Payload of whole quads of leaves: 254 bits of every 256.
fn compress(leaves: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(leaves.len() / QUAD_PADDED as usize * QUAD as usize);
    let (mut held, mut bits) = (0_u32, 0_u32);
    for leaf in leaves.chunks_exact(32) {
        for (i, byte) in leaf.iter().enumerate() {
            let width = if i == 31 { 6 } else { 8 };
            held |= (u32::from(*byte) & ((1 << width) - 1)) << bits;
            bits += width;
            if bits >= 8 {
                payload.push((held & 0xff) as u8);
                held >>= 8;
                bits -= 8;
            }
        }
    }
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_is_the_inverse_of_expansion() {
        let payload: Vec<u8> = (0..127 * 5).map(|i| (i * 37 % 251) as u8).collect();
        assert_eq!(compress(leaves_of(&payload).as_flattened()), payload);
    }

    #[test]
    fn a_window_passes_exactly_its_bytes() {
        let bytes: Vec<u8> = (0..=255).collect();
        for (skip, left, step) in [(0, 256, 7), (3, 10, 2), (200, 56, 256), (255, 1, 1), (10, 0, 5)] {
            let mut out = Vec::new();
            let mut window = Window { out: &mut out, skip, left };
            for chunk in bytes.chunks(step) {
                window.write_all(chunk).unwrap();
            }
            assert_eq!(out, bytes[skip as usize..(skip + left) as usize]);
        }
    }

    #[test]
    fn expanding_in_pieces_is_expanding_at_once() {
        let payload: Vec<u8> = (0..127 * 4).map(|i| (i % 241) as u8).collect();
        let mut expand = Expand { out: Vec::new(), quad: Vec::new() };
        for chunk in payload.chunks(50) {
            expand.write_all(chunk).unwrap();
        }
        assert_eq!(expand.out, leaves_of(&payload).as_flattened());
    }
}
