//! CAR files as others write and read them: version 1 written, 1 and 2 read.
//!
//! ```text
//! v1   varint length | DAG-CBOR {roots: [CID], version: 1} | { varint length | CID | block } ...
//! v2   11 bytes | characteristics 16 | data offset u64 LE | data length u64 LE | index offset u64 LE | ... v1 ... | index
//! ```
//!
//! Promises: a block comes out only after its hash was checked; every length is checked before anything is allocated for it.
//! Refuses headers of more than [`HEADER_BYTES_MAX`] bytes and sections longer than a block may be. The index of a version 2
//! file is not believed, and not read.

use super::PlainError;
use crate::block::{BLOCK_BYTES_MAX, Block, BlockError, as_v1};
use cid::Cid;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use unsigned_varint::encode as varint;

/// No header is longer: a thousand roots.
pub const HEADER_BYTES_MAX: u64 = 64 << 10;
/// No CID is longer: a hash of 64 bytes and four numbers.
const CID_BYTES_MAX: u64 = 128;
/// Numbers of that many bytes are enough for any section.
const LENGTH_BYTES_MAX: u32 = 4;
/// What a version 2 file begins with: the length 10, and {version: 2}.
const V2_PRAGMA: &[u8] = &[0x0a, 0xa1, 0x67, b'v', b'e', b'r', b's', b'i', b'o', b'n', 0x02];
/// Characteristics, two offsets and a length.
const V2_HEADER_BYTES: usize = 40;

/// Why a CAR file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CarFileError {
    /// The file failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// No CAR file, or a damaged one.
    #[error("no sound CAR file: {why}, at byte {offset}")]
    Malformed {
        /// Where.
        offset: u64,
        /// In what way.
        why: &'static str,
    },
    /// A version that is not known here.
    #[error("a CAR file of version {0}; versions 1 and 2 are known")]
    Version(u64),
    /// A block's bytes are not what its CID says.
    #[error("the CAR file is damaged at byte {offset}: {source}")]
    Damaged {
        /// Where the block's bytes begin.
        offset: u64,
        /// What does not match.
        source: BlockError,
    },
}

impl From<CarFileError> for PlainError {
    fn from(error: CarFileError) -> Self {
        Self::Other(Box::new(error))
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    roots: Option<Vec<Cid>>,
    version: u64,
}

/// The header of a version 1 file, its length before it.
pub fn header(roots: &[Cid]) -> Vec<u8> {
    let header = Header { roots: Some(roots.to_vec()), version: 1 };
    // Encoding into memory has no failing case.
    let body = serde_ipld_dagcbor::to_vec(&header).unwrap_or_default();
    let mut out = varint::u64(body.len() as u64, &mut varint::u64_buffer()).to_vec();
    out.extend_from_slice(&body);
    out
}

/// What stands before a block's bytes in a section.
pub fn section_head(cid: &Cid, len: u32) -> Vec<u8> {
    let length = cid.encoded_len() as u64 + u64::from(len);
    let mut head = varint::u64(length, &mut varint::u64_buffer()).to_vec();
    head.extend_from_slice(&cid.to_bytes());
    head
}

/// Writes a section; returns its length.
pub fn write_section(out: &mut impl Write, cid: &Cid, block: &Block) -> io::Result<u64> {
    let head = section_head(cid, block.len());
    out.write_all(&head)?;
    out.write_all(block.bytes())?;
    Ok(head.len() as u64 + u64::from(block.len()))
}

/// A section of a file that is being read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Section {
    /// As it stands there.
    pub cid: Cid,
    /// Where the block's bytes begin in the file.
    pub offset: u64,
    /// How many they are.
    pub len: u32,
    /// The block, checked; nothing where its codec or hash is none of those that files and folders are made of.
    pub block: Option<Block>,
}

/// Reads a file from its beginning.
pub struct CarReader<R> {
    input: R,
    roots: Vec<Cid>,
    position: u64,
    /// Where the sections end, if the file says so.
    end: Option<u64>,
}

impl<R: Read> CarReader<R> {
    /// Reads the header.
    pub fn new(mut input: R) -> Result<Self, CarFileError> {
        let (header, mut position) = read_header(&mut input, 0)?;
        if header.version == 1 {
            return Ok(Self { input, roots: header.roots.unwrap_or_default(), position, end: None });
        }
        if header.version != 2 || position != V2_PRAGMA.len() as u64 {
            return Err(CarFileError::Version(header.version));
        }
        let mut fields = [0; V2_HEADER_BYTES];
        input.read_exact(&mut fields).map_err(|error| cut_short(error, position))?;
        position += V2_HEADER_BYTES as u64;
        let number = |at: usize| {
            let bytes = fields.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_le_bytes)
        };
        let (data_offset, data_len) = (number(16), number(24));
        let end = data_offset.checked_add(data_len);
        let (Some(gap), Some(end)) = (data_offset.checked_sub(position), end) else {
            return Err(CarFileError::Malformed { offset: position, why: "where its data lies" });
        };
        if io::copy(&mut (&mut input).take(gap), &mut io::sink())? != gap {
            return Err(CarFileError::Malformed { offset: position, why: "it is cut short" });
        }
        let (header, position) = read_header(&mut input, data_offset)?;
        if header.version != 1 {
            return Err(CarFileError::Version(header.version));
        }
        Ok(Self { input, roots: header.roots.unwrap_or_default(), position, end: Some(end) })
    }

    /// What the header names.
    pub fn roots(&self) -> &[Cid] {
        &self.roots
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next section; nothing at the end.
    pub fn next_section(&mut self) -> Result<Option<Section>, CarFileError> {
        let start = self.position;
        if self.end.is_some_and(|end| start >= end) {
            return Ok(None);
        }
        let length =
            crate::varint::read(&mut self.input, LENGTH_BYTES_MAX).map_err(|e| cut_short(e, start))?;
        let Some((length, taken)) = length else {
            return match self.end {
                None => Ok(None),
                Some(_) => Err(CarFileError::Malformed { offset: start, why: "it is cut short" }),
            };
        };
        let malformed = |why| CarFileError::Malformed { offset: start, why };
        if length == 0 || length > CID_BYTES_MAX + BLOCK_BYTES_MAX as u64 {
            return Err(malformed("a section's length"));
        }
        self.position = start + taken + length;
        if self.end.is_some_and(|end| self.position > end) {
            return Err(malformed("a section beyond the end of its data"));
        }
        // Bounded just above.
        let mut bytes = vec![0; length as usize];
        self.input.read_exact(&mut bytes).map_err(|error| cut_short(error, start))?;
        let mut rest = bytes.as_slice();
        let cid = Cid::read_bytes(&mut rest).map_err(|_| malformed("a CID"))?;
        let head = bytes.len() - rest.len();
        let offset = start + taken + head as u64;
        let len = rest.len() as u32;
        let block = match as_v1(&cid) {
            Ok(v1) => {
                let body = bytes::Bytes::from(bytes).slice(head..);
                let block = Block::verify(v1, body);
                Some(block.map_err(|source| CarFileError::Damaged { offset, source })?)
            }
            Err(_) => None,
        };
        Ok(Some(Section { cid, offset, len, block }))
    }
}

/// A header that begins at `offset`, and where it ends.
fn read_header(input: &mut impl Read, offset: u64) -> Result<(Header, u64), CarFileError> {
    let malformed = |why| CarFileError::Malformed { offset, why };
    let length = crate::varint::read(input, LENGTH_BYTES_MAX).map_err(|error| cut_short(error, offset))?;
    let (length, taken) = length.ok_or_else(|| malformed("it is empty"))?;
    if length == 0 || length > HEADER_BYTES_MAX {
        return Err(malformed("its header's length"));
    }
    let mut bytes = vec![0; length as usize];
    input.read_exact(&mut bytes).map_err(|error| cut_short(error, offset))?;
    let header = serde_ipld_dagcbor::from_slice(&bytes).map_err(|_| malformed("its header"))?;
    Ok((header, offset + taken + length))
}

fn cut_short(error: io::Error, offset: u64) -> CarFileError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => CarFileError::Malformed { offset, why: "it is cut short" },
        io::ErrorKind::InvalidData => CarFileError::Malformed { offset, why: "a length" },
        _ => error.into(),
    }
}
