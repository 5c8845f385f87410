//! Rows of blocks, dedup tags, pieces and commits: codecs only.
//!
//! Owns: the byte layouts drawn in `fs/format/sealing.md`. Promises: `decode(encode(x)) == x`, and any other bytes give
//! [`RowError`], never a panic. Refuses: versions above 1.

use holdfast_content::BlockAt;
use thiserror::Error;

use crate::drive::types::PieceId;

/// The only version so far.
const VERSION: u8 = 1;

/// A row in the index that is not what this program writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RowError {
    /// Written by a newer program.
    #[error("{row} row has version {version}; this program knows 1: update Holdfast")]
    Version {
        /// Which row.
        row: &'static str,
        /// The version found.
        version: u8,
    },
    /// Too short, too long, or a field out of range.
    #[error("{0} row is damaged")]
    Damaged(&'static str),
}

/// A strict reader over a row's bytes.
pub(crate) struct Fields<'a> {
    row: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Checks the version byte and starts behind it.
    pub(crate) fn open(row: &'static str, bytes: &'a [u8]) -> Result<Self, RowError> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => Ok(Self { row, rest }),
            Some((&version, _)) if version > VERSION => Err(RowError::Version { row, version }),
            _ => Err(RowError::Damaged(row)),
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], RowError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(RowError::Damaged(self.row))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, RowError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, RowError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, RowError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn close(self) -> Result<(), RowError> {
        if self.rest.is_empty() { Ok(()) } else { Err(RowError::Damaged(self.row)) }
    }

    pub(crate) fn damaged(&self) -> RowError {
        RowError::Damaged(self.row)
    }
}

/// `block[digest]`: where a block's bytes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRow {
    /// dag-pb rather than raw.
    pub dag_pb: bool,
    /// The piece.
    pub piece: PieceId,
    /// Of the block's first byte in the piece file.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
}

impl BlockRow {
    /// Bytes at rest.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(30);
        out.push(VERSION);
        out.push(u8::from(self.dag_pb));
        out.extend_from_slice(&self.piece);
        out.extend_from_slice(&self.offset.to_be_bytes());
        out.extend_from_slice(&self.len.to_be_bytes());
        out
    }

    /// From bytes at rest.
    pub fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        let mut f = Fields::open("block", bytes)?;
        let dag_pb = match f.u8()? {
            0 => false,
            1 => true,
            _ => return Err(f.damaged()),
        };
        let row = Self { dag_pb, piece: f.array()?, offset: f.u64()?, len: f.u32()? };
        f.close()?;
        Ok(row)
    }

    /// The row of a block that was just written.
    pub fn of(at: &BlockAt) -> Self {
        Self { dag_pb: at.cid.codec() == CODEC_DAG_PB, piece: at.piece, offset: at.offset, len: at.len }
    }
}

/// Multicodec of dag-pb.
pub const CODEC_DAG_PB: u64 = 0x70;
/// Multicodec of raw.
pub const CODEC_RAW: u64 = 0x55;

/// `dedup[tag]`: a chunk with this plaintext exists already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DedupRow {
    /// How the plaintext was packed before encryption.
    pub codec: u8,
    /// Digest of the block.
    pub digest: [u8; 32],
    /// The chunk's key.
    pub key: [u8; 32],
    /// Bytes of the block.
    pub block_len: u32,
    /// Bytes of the plaintext.
    pub plain_len: u32,
}

impl DedupRow {
    /// Bytes at rest.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(74);
        out.push(VERSION);
        out.push(self.codec);
        out.extend_from_slice(&self.digest);
        out.extend_from_slice(&self.key);
        out.extend_from_slice(&self.block_len.to_be_bytes());
        out.extend_from_slice(&self.plain_len.to_be_bytes());
        out
    }

    /// From bytes at rest.
    pub fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        let mut f = Fields::open("dedup", bytes)?;
        let row = Self {
            codec: f.u8()?,
            digest: f.array()?,
            key: f.array()?,
            block_len: f.u32()?,
            plain_len: f.u32()?,
        };
        f.close()?;
        Ok(row)
    }
}

/// `piece[id]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceRow {
    /// Its file is in the home folder.
    pub local: bool,
    /// Written by the daemon for its own use; no commit refers to it.
    pub checkpoint: bool,
    /// Bytes of the file.
    pub raw_len: u64,
    /// Unix seconds.
    pub created: u64,
    /// The first commit that needs it, 0 while none does.
    pub commit_sequence: u64,
    /// Blocks in it.
    pub blocks: u32,
}

impl PieceRow {
    const LOCAL: u8 = 1;
    const CHECKPOINT: u8 = 2;

    /// Bytes at rest.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(30);
        out.push(VERSION);
        out.push(
            if self.local { Self::LOCAL } else { 0 } | if self.checkpoint { Self::CHECKPOINT } else { 0 },
        );
        out.extend_from_slice(&self.raw_len.to_be_bytes());
        out.extend_from_slice(&self.created.to_be_bytes());
        out.extend_from_slice(&self.commit_sequence.to_be_bytes());
        out.extend_from_slice(&self.blocks.to_be_bytes());
        out
    }

    /// From bytes at rest.
    pub fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        let mut f = Fields::open("piece", bytes)?;
        let flags = f.u8()?;
        if flags & !(Self::LOCAL | Self::CHECKPOINT) != 0 {
            return Err(f.damaged());
        }
        let row = Self {
            local: flags & Self::LOCAL != 0,
            checkpoint: flags & Self::CHECKPOINT != 0,
            raw_len: f.u64()?,
            created: f.u64()?,
            commit_sequence: f.u64()?,
            blocks: f.u32()?,
        };
        f.close()?;
        Ok(row)
    }
}

/// `dag[ino, level, index]`: an inner node of a file's DAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DagRow {
    /// dag-pb, or raw where the root is a leaf.
    pub dag_pb: bool,
    /// On the root's row: how many levels of inner nodes there are. Elsewhere 0.
    pub levels: u8,
    /// Of the node's block.
    pub digest: [u8; 32],
    /// The node's block and all below it: dag-pb's Tsize.
    pub cumulative: u64,
    /// Bytes of the leaves below: UnixFS' file size (ciphertext).
    pub data: u64,
}

impl DagRow {
    /// Bytes at rest.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(51);
        out.push(VERSION);
        out.push(u8::from(self.dag_pb));
        out.push(self.levels);
        out.extend_from_slice(&self.digest);
        out.extend_from_slice(&self.cumulative.to_be_bytes());
        out.extend_from_slice(&self.data.to_be_bytes());
        out
    }

    /// From bytes at rest.
    pub fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        let mut f = Fields::open("dag", bytes)?;
        let dag_pb = match f.u8()? {
            0 => false,
            1 => true,
            _ => return Err(f.damaged()),
        };
        let row = Self { dag_pb, levels: f.u8()?, digest: f.array()?, cumulative: f.u64()?, data: f.u64()? };
        f.close()?;
        Ok(row)
    }

    /// `dag`'s key; level 0 index 0 is the root.
    pub fn key(ino: u64, level: u8, index: u64) -> Vec<u8> {
        let mut key = Vec::with_capacity(17);
        key.extend_from_slice(&ino.to_be_bytes());
        key.push(level);
        key.extend_from_slice(&index.to_be_bytes());
        key
    }
}
