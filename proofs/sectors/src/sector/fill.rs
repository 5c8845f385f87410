//! Pieces into a sector: expanded to leaves as they are read, hashed against their names, at their aligned places.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};

use holdfast_proofs::commp::{Node, hash_pair, leaves_of};
use holdfast_proofs::{CommpHasher, PieceCid};

use super::journal::Piece;
use super::{Output, Phase, Sector, SectorError, UNSEALED};
use crate::packing::PieceRoot;

/// Payload bytes expanded at a time: whole groups of 127, about a mebibyte.
const CHUNK_PAYLOAD: usize = 127 * 8_192;
const LEAF: usize = 32;

impl Sector {
    /// Writes a piece behind the others and enters it into the journal. Returns its padded offset.
    ///
    /// # Errors
    /// `WrongPhase` once the sector is packed; `Packing`; `OtherPiece` where the bytes are not the piece's and `Payload` where
    /// they cannot be read, in which cases the sector is as before; `Io` of the sector's own files.
    pub fn add_piece(&mut self, cid: PieceCid, payload: impl Read) -> Result<u64, SectorError> {
        if self.phase() != Phase::Filling {
            return Err(SectorError::WrongPhase { at: self.phase() });
        }
        if cid.payload_len() == 0 {
            return Err(crate::packing::PackingError::Empty.into());
        }
        let mut layout = self.layout()?;
        let offset = layout.push(PieceRoot::of(&cid))?;
        self.write_piece(cid, offset, payload)?;
        self.journal.pieces.push(Piece { cid, offset });
        self.journal.store(&self.dir)?;
        Ok(offset)
    }

    /// Writes a piece's bytes again, where a disk lost them before the replica was made.
    ///
    /// # Errors
    /// `WrongPhase`; `Range` where there is no such piece; `OtherPiece`, `Payload`; `Io`.
    pub fn rewrite_piece(&mut self, index: usize, payload: impl Read) -> Result<(), SectorError> {
        if self.phase() != Phase::Filling {
            return Err(SectorError::WrongPhase { at: self.phase() });
        }
        let none = SectorError::Range { offset: index as u64, len: 1 };
        let piece = self.journal.pieces.get(index).ok_or(none)?.clone();
        self.write_piece(piece.cid, piece.offset, payload)
    }

    fn write_piece(&self, cid: PieceCid, offset: u64, payload: impl Read) -> Result<(), SectorError> {
        let path = self.path(UNSEALED);
        let mut payload = Payload { source: payload, failed: None };
        let wrote = (|| {
            let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
            file.set_len(self.journal.spec.profile.sector_bytes())?;
            file.seek(SeekFrom::Start(offset))?;
            let found = copy_expanded(&mut payload, cid.payload_len(), &mut file)?;
            file.sync_all()?;
            Ok(found)
        })();
        // A full disk is no fault of the piece: whose failure it was decides whether it is tried again.
        if let Some(error) = payload.failed {
            return Err(SectorError::Payload(error));
        }
        match wrote.map_err(SectorError::io(&path))? {
            Some(found) if found == cid => Ok(()),
            Some(found) => Err(SectorError::OtherPiece { expected: cid, found }),
            None => Err(SectorError::Payload(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Ends filling: zeros where no piece is, every piece's bytes hashed against its name.
    pub(super) fn pack(&self) -> Result<Vec<Output>, SectorError> {
        let path = self.path(UNSEALED);
        let io = || SectorError::io(&path);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io())?;
        // A piece that was not entered may have left bytes: cut them off, and lengthen again with zeros.
        let sector = self.journal.spec.profile.sector_bytes();
        file.set_len(self.layout()?.used_bytes()).map_err(io())?;
        file.set_len(sector).map_err(io())?;
        for piece in &self.journal.pieces {
            file.seek(SeekFrom::Start(piece.offset)).map_err(io())?;
            let root = tree_root(BufReader::new(&mut file), piece.cid.padded_len()).map_err(io())?;
            if root != *piece.cid.root() {
                return Err(SectorError::PieceDamaged { piece: piece.cid });
            }
        }
        self.zero_gaps(&mut file).map_err(io())?;
        file.sync_all().map_err(io())?;
        let output = Output::of(&self.dir, UNSEALED.to_owned()).map_err(io())?;
        Ok(vec![output])
    }

    /// Zeros between pieces: alignment leaves gaps that an interrupted writer may have written into.
    fn zero_gaps(&self, file: &mut File) -> io::Result<()> {
        let mut at = 0;
        for piece in &self.journal.pieces {
            if piece.offset > at {
                file.seek(SeekFrom::Start(at))?;
                io::copy(&mut io::repeat(0).take(piece.offset - at), file)?;
            }
            at = piece.offset + piece.cid.padded_len();
        }
        Ok(())
    }

    /// Whether the unsealed copy is still what was packed; `false` where it was dropped.
    #[must_use]
    pub fn check_unsealed(&self) -> bool {
        let packed = self.journal.finished.iter().find(|finished| finished.phase == Phase::Packed);
        !self.journal.unsealed_dropped
            && packed.is_some_and(|packed| packed.outputs.iter().all(|output| output.is_intact(&self.dir)))
    }
}

/// A piece's bytes, and why they could not be read.
struct Payload<R> {
    source: R,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Payload<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.source.read(out).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                self.failed = Some(error);
            }
            kind.into()
        })
    }
}

/// Copies a payload as leaves, completed with zeros to its padded length; its name, or none if it was short.
fn copy_expanded(mut payload: impl Read, len: u64, to: &mut impl Write) -> io::Result<Option<PieceCid>> {
    let mut hasher = CommpHasher::new();
    let mut chunk = vec![0; CHUNK_PAYLOAD];
    let mut left = len;
    let mut written = 0_u64;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(CHUNK_PAYLOAD).min(CHUNK_PAYLOAD);
        let Some(room) = chunk.get_mut(..want) else { break };
        match payload.read_exact(room) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        hasher.update(room);
        let leaves = leaves_of(room);
        to.write_all(leaves.as_flattened())?;
        written += (leaves.len() * LEAF) as u64;
        left -= want as u64;
    }
    let found = hasher.finish();
    io::copy(&mut io::repeat(0).take(found.padded_len().saturating_sub(written)), to)?;
    Ok(Some(found))
}

/// Root of the tree over leaves as they stand in a file; the length is a power of two.
fn tree_root(mut leaves: impl Read, bytes: u64) -> io::Result<Node> {
    let mut stack: Vec<(u32, Node)> = Vec::new();
    let mut left = bytes;
    while left > 0 {
        let mut pair = [[0; LEAF]; 2];
        leaves.read_exact(pair.as_flattened_mut())?;
        left = left.saturating_sub(2 * LEAF as u64);
        let mut node = hash_pair(&pair[0], &pair[1]);
        let mut level = 1;
        while let Some((_, sibling)) = stack.pop_if(|(at, _)| *at == level) {
            node = hash_pair(&sibling, &node);
            level += 1;
        }
        stack.push((level, node));
    }
    Ok(stack.pop().map_or([0; LEAF], |(_, node)| node))
}
