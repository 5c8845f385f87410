//! Entry, xattr, extent, chunk and orphan rows.

use bytes::Bytes;
use holdfast_store::Lsn;

use super::codec::Reader;
use super::inode::{Ino, Kind};
use super::{ROW_VERSION, RowError};

/// Longest file name, in bytes of any encoding.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest xattr value (`XATTR_SIZE_MAX` of Linux).
pub const XATTR_VALUE_BYTES_MAX: usize = 65536;

/// One slot of a directory: a name, or a tombstone that keeps a collision chain whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryRow {
    Name {
        ino: Ino,
        kind: Kind,
        name: Bytes,
    },
    /// A name stood here; a later slot of the same hash is (or was) in use.
    Tombstone,
}

impl EntryRow {
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Name { ino, kind, name } => {
                let mut out = Vec::with_capacity(10 + name.len());
                out.push(ROW_VERSION);
                out.push(*kind as u8);
                out.extend_from_slice(&ino.to_le_bytes());
                out.extend_from_slice(name);
                out
            }
            Self::Tombstone => vec![ROW_VERSION, 0],
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        let corrupt = RowError::Corrupt { what: "entry" };
        let mut r = Reader::new("entry", bytes);
        r.version()?;
        let kind = r.u8()?;
        if kind == 0 {
            r.end()?;
            return Ok(Self::Tombstone);
        }
        let Some(kind) = Kind::from_u8(kind) else { return Err(corrupt) };
        let ino = r.u64()?;
        let name = r.rest();
        if ino == 0 || !is_valid_name(name) {
            return Err(corrupt);
        }
        Ok(Self::Name { ino, kind, name: Bytes::copy_from_slice(name) })
    }
}

/// Whether a directory may hold this name (`.` and `..` are never stored).
pub fn is_valid_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name != b"."
        && name != b".."
        && !name.iter().any(|b| *b == 0 || *b == b'/')
}

/// One extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XattrRow {
    pub name: Bytes,
    pub value: Bytes,
}

impl XattrRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 + self.name.len() + self.value.len());
        out.push(ROW_VERSION);
        out.push(u8::try_from(self.name.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(&self.name);
        out.extend_from_slice(&self.value);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        let mut r = Reader::new("xattr", bytes);
        r.version()?;
        let len = r.u8()?;
        let name = r.take(usize::from(len))?;
        let value = r.rest();
        if name.is_empty() || name.contains(&0) || value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(RowError::Corrupt { what: "xattr" });
        }
        Ok(Self { name: Bytes::copy_from_slice(name), value: Bytes::copy_from_slice(value) })
    }
}

/// Where the bytes of an extent come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentSource {
    /// Nothing but zeros: hides chunks below. A hole.
    Zero,
    /// `len` bytes of payload `payload`, from byte `skip` on.
    Payload { payload: Lsn, skip: u64 },
}

/// A run of a file's bytes that lies in the log (or is known to be zeros), on top of the chunks.
///
/// Extents of one file never overlap. `lsn` is the record that wrote the bytes; it stays when a later
/// write trims or splits the extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentRow {
    pub len: u64,
    pub lsn: Lsn,
    pub source: ExtentSource,
}

impl ExtentRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(34);
        out.push(ROW_VERSION);
        out.push(match self.source {
            ExtentSource::Zero => 0,
            ExtentSource::Payload { .. } => 1,
        });
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.lsn.to_le_bytes());
        if let ExtentSource::Payload { payload, skip } = self.source {
            out.extend_from_slice(&payload.to_le_bytes());
            out.extend_from_slice(&skip.to_le_bytes());
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        let corrupt = RowError::Corrupt { what: "extent" };
        let mut r = Reader::new("extent", bytes);
        r.version()?;
        let kind = r.u8()?;
        let (len, lsn) = (r.u64()?, r.u64()?);
        let source = match kind {
            0 => ExtentSource::Zero,
            1 => ExtentSource::Payload { payload: r.u64()?, skip: r.u64()? },
            _ => return Err(corrupt),
        };
        r.end()?;
        if len == 0 {
            return Err(corrupt);
        }
        Ok(Self { len, lsn, source })
    }

    /// The same bytes without the first `n`.
    pub fn without_front(self, n: u64) -> Self {
        let source = match self.source {
            ExtentSource::Zero => ExtentSource::Zero,
            ExtentSource::Payload { payload, skip } => {
                ExtentSource::Payload { payload, skip: skip.saturating_add(n) }
            }
        };
        Self { len: self.len.saturating_sub(n), source, ..self }
    }

    /// The same bytes, only the first `n`.
    pub fn truncated(self, n: u64) -> Self {
        Self { len: self.len.min(n), ..self }
    }

    pub fn payload(&self) -> Option<Lsn> {
        match self.source {
            ExtentSource::Zero => None,
            ExtentSource::Payload { payload, .. } => Some(payload),
        }
    }
}

/// A sealed chunk: chunk `n` of a file covers bytes `n << chunk_log2` and on.
#[derive(Clone, PartialEq, Eq)]
pub struct ChunkRow {
    /// SHA-256 of the encrypted leaf; its CID is CIDv1 raw sha2-256 of this digest.
    pub digest: [u8; 32],
    /// The key that opens the leaf. Stands in the namespace and nowhere else.
    pub key: [u8; 32],
    /// How the plain bytes were packed before encryption (the content crate's codec number).
    pub codec: u8,
    /// Length of the plain bytes; those of the chunk beyond it are zeros.
    pub plain_len: u32,
    /// Length of the encrypted leaf.
    pub block_len: u32,
    /// The chunk shows the file as of this LSN; an older cut never replaces it.
    pub cut: Lsn,
}

impl std::fmt::Debug for ChunkRow {
    /// Shows no key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkRow")
            .field("digest", &blake3::Hash::from(self.digest).to_hex().as_str())
            .field("plain_len", &self.plain_len)
            .field("block_len", &self.block_len)
            .field("cut", &self.cut)
            .finish_non_exhaustive()
    }
}

impl ChunkRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(84);
        out.push(ROW_VERSION);
        out.push(self.codec);
        // Number of patch leaves on top of this one; this version writes and reads 0.
        out.push(0);
        out.extend_from_slice(&self.plain_len.to_le_bytes());
        out.extend_from_slice(&self.block_len.to_le_bytes());
        out.extend_from_slice(&self.cut.to_le_bytes());
        out.extend_from_slice(&self.digest);
        out.extend_from_slice(&self.key);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        let mut r = Reader::new("chunk", bytes);
        r.version()?;
        let codec = r.u8()?;
        let patches = r.u8()?;
        if patches != 0 {
            return Err(RowError::Newer { what: "chunk with patches", found: patches });
        }
        let (plain_len, block_len, cut) = (r.u32()?, r.u32()?, r.u64()?);
        let (digest, key) = (r.array()?, r.array()?);
        r.end()?;
        if plain_len > 1 << super::inode::CHUNK_LOG2_MAX {
            return Err(RowError::Corrupt { what: "chunk" });
        }
        Ok(Self { digest, key, codec, plain_len, block_len, cut })
    }
}

/// Work that must be finished after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrphanRow {
    /// No name is left: everything that belongs to the inode goes.
    Unlinked,
    /// A truncation to `from` bytes is under way: extents at and beyond it go.
    Trim { from: u64 },
}

impl OrphanRow {
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Unlinked => vec![ROW_VERSION, 1],
            Self::Trim { from } => {
                let mut out = vec![ROW_VERSION, 2];
                out.extend_from_slice(&from.to_le_bytes());
                out
            }
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        let mut r = Reader::new("orphan", bytes);
        r.version()?;
        let row = match r.u8()? {
            1 => Self::Unlinked,
            2 => Self::Trim { from: r.u64()? },
            _ => return Err(RowError::Corrupt { what: "orphan" }),
        };
        r.end()?;
        Ok(row)
    }
}
