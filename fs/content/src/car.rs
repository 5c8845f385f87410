//! Pieces: CARv1 files of ciphertext blocks.
//!
//! ```text
//! varint length | header: DAG-CBOR {roots: [bafkqaaa], version: 1}
//! { varint length of the rest | CID 36 bytes | block bytes } ...
//! ```
//!
//! The header's root is the empty identity CID, the usual placeholder when roots are not known while writing. A piece's
//! id is drawn by whoever creates its file; an unfinished piece is never continued. Reading verifies every block.

use crate::block::{
    BLOCK_BYTES_MAX, Block, BlockAt, BlockError, BlockSink, CID_BYTES, PieceId, SinkError, cid_from_bytes,
};
use std::io::{self, Read, Write};
use unsigned_varint::encode as varint;

/// The target size of a piece.
pub const PIECE_BYTES_TARGET: u64 = 64 << 20;
/// Sections of a reader's hostile input are at most this long.
const SECTION_BYTES_MAX: u64 = (CID_BYTES + BLOCK_BYTES_MAX) as u64;
/// `{roots: [bafkqaaa], version: 1}` in DAG-CBOR, with its length before it.
const HEADER: &[u8] = &[
    0x19, 0xa2, 0x65, b'r', b'o', b'o', b't', b's', 0x81, 0xd8, 0x2a, 0x45, 0x00, 0x01, 0x55, 0x00, 0x00,
    0x67, b'v', b'e', b'r', b's', b'i', b'o', b'n', 0x01,
];

/// Why a piece could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CarError {
    /// The medium failed.
    #[error("reading a piece: {0}")]
    Io(#[from] io::Error),
    /// Not a piece of ours.
    #[error("malformed piece at offset {offset}: {why}")]
    Malformed {
        /// Where.
        offset: u64,
        /// In what way.
        why: String,
    },
    /// A block's bytes are not what its CID says.
    #[error("damaged piece at offset {offset}: {source}")]
    Damaged {
        /// Where the block's bytes begin.
        offset: u64,
        /// What does not match.
        source: BlockError,
    },
}

/// Writes a piece. The caller syncs the medium and gives the file its final name.
pub struct PieceWriter<W> {
    out: W,
    id: PieceId,
    position: u64,
    blocks: u64,
}

impl<W: Write> PieceWriter<W> {
    /// Begins a piece: writes the header.
    pub fn new(mut out: W, id: PieceId) -> io::Result<Self> {
        out.write_all(HEADER)?;
        Ok(Self { out, id, position: HEADER.len() as u64, blocks: 0 })
    }

    /// The piece's id.
    pub fn id(&self) -> PieceId {
        self.id
    }

    /// Bytes written so far: the piece's raw length once it is finished.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Blocks written so far.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The length of the piece after a further block of `len` bytes.
    pub fn position_after(&self, len: u32) -> u64 {
        let section = CID_BYTES as u64 + u64::from(len);
        let mut buffer = varint::u64_buffer();
        self.position + varint::u64(section, &mut buffer).len() as u64 + section
    }

    /// Appends a block.
    pub fn write(&mut self, block: &Block) -> io::Result<BlockAt> {
        let section = CID_BYTES as u64 + u64::from(block.len());
        let mut buffer = varint::u64_buffer();
        let mut head = varint::u64(section, &mut buffer).to_vec();
        block.cid().write_bytes(&mut head).map_err(io::Error::other)?;
        self.out.write_all(&head)?;
        self.out.write_all(block.bytes())?;
        let offset = self.position + head.len() as u64;
        self.position = offset + u64::from(block.len());
        self.blocks += 1;
        Ok(BlockAt { cid: *block.cid(), piece: self.id, offset, len: block.len() })
    }

    /// Flushes and hands the medium back.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    /// The medium, to sync it while writing.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }
}

impl<W: Write> BlockSink for PieceWriter<W> {
    fn put(&mut self, block: Block) -> Result<BlockAt, SinkError> {
        Ok(self.write(&block)?)
    }
}

/// Reads a piece from its beginning, block by block.
pub struct PieceReader<R> {
    input: R,
    id: PieceId,
    position: u64,
}

impl<R: Read> PieceReader<R> {
    /// Reads and checks the header.
    pub fn new(mut input: R, id: PieceId) -> Result<Self, CarError> {
        let mut header = vec![0; HEADER.len()];
        input.read_exact(&mut header)?;
        if header != HEADER {
            return Err(CarError::Malformed { offset: 0, why: "not the header of a piece".to_owned() });
        }
        Ok(Self { input, id, position: HEADER.len() as u64 })
    }

    /// The offset of the next section.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next block, verified, and where it lies; nothing at the end.
    pub fn next_block(&mut self) -> Result<Option<(Block, BlockAt)>, CarError> {
        let Some((at, bytes)) = self.next_section(true)? else { return Ok(None) };
        let block =
            Block::verify(at.cid, bytes).map_err(|source| CarError::Damaged { offset: at.offset, source })?;
        Ok(Some((block, at)))
    }

    /// Where the next block lies, without verifying it.
    pub fn next_place(&mut self) -> Result<Option<BlockAt>, CarError> {
        Ok(self.next_section(false)?.map(|(at, _)| at))
    }

    fn next_section(&mut self, keep: bool) -> Result<Option<(BlockAt, Vec<u8>)>, CarError> {
        let start = self.position;
        let malformed = |why: &str| CarError::Malformed { offset: start, why: why.to_owned() };
        let Some((length, varint_len)) = self.read_varint()? else { return Ok(None) };
        if length < CID_BYTES as u64 || length > SECTION_BYTES_MAX {
            return Err(malformed("a section's length"));
        }
        let mut cid = [0; CID_BYTES];
        self.input.read_exact(&mut cid)?;
        let cid = cid_from_bytes(&cid).map_err(|_| malformed("a CID"))?;
        // Bounded by SECTION_BYTES_MAX above.
        let len = (length - CID_BYTES as u64) as usize;
        let mut bytes = Vec::new();
        if keep {
            bytes.resize(len, 0);
            self.input.read_exact(&mut bytes)?;
        } else if io::copy(&mut (&mut self.input).take(len as u64), &mut io::sink())? != len as u64 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let offset = start + varint_len + CID_BYTES as u64;
        self.position = offset + len as u64;
        Ok(Some((BlockAt { cid, piece: self.id, offset, len: len as u32 }, bytes)))
    }

    /// A minimal varint and its length, or nothing at the end of the input.
    fn read_varint(&mut self) -> Result<Option<(u64, u64)>, CarError> {
        // SECTION_BYTES_MAX fits four groups of seven bits.
        crate::varint::read(&mut self.input, 4).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => CarError::Malformed {
                offset: self.position,
                why: "a section's length is no minimal varint".to_owned(),
            },
            _ => error.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::retrieve::{FakeRetriever, conformance};

    fn blocks() -> Vec<Block> {
        vec![
            Block::raw(&b"hello"[..]).unwrap(),
            Block::raw(vec![7; 100_000]).unwrap(),
            Block::raw(Vec::new()).unwrap(),
            Block::raw(vec![1; BLOCK_BYTES_MAX]).unwrap(),
        ]
    }

    fn piece() -> (Vec<u8>, Vec<BlockAt>) {
        let mut writer = PieceWriter::new(Vec::new(), [9; 16]).unwrap();
        let mut places = Vec::new();
        for block in blocks() {
            let expected = writer.position_after(block.len());
            places.push(writer.put(block).unwrap());
            assert_eq!(writer.position(), expected);
        }
        (writer.finish().unwrap(), places)
    }

    #[test]
    fn header_is_what_dag_cbor_makes_of_it() {
        #[derive(serde::Serialize)]
        struct Header {
            roots: Vec<cid::Cid>,
            version: u64,
        }
        let header = Header { roots: vec!["bafkqaaa".parse().unwrap()], version: 1 };
        let bytes = serde_ipld_dagcbor::to_vec(&header).unwrap();
        assert_eq!(usize::from(HEADER[0]), bytes.len());
        assert_eq!(&HEADER[1..], bytes);
    }

    #[test]
    fn reads_back_what_was_written() {
        let (bytes, places) = piece();
        let mut reader = PieceReader::new(bytes.as_slice(), [9; 16]).unwrap();
        for (block, place) in blocks().iter().zip(&places) {
            let (read, at) = reader.next_block().unwrap().unwrap();
            assert_eq!((&read, &at), (block, place));
            let start = at.offset as usize;
            assert_eq!(&bytes[start..start + at.len as usize], block.bytes());
        }
        assert!(reader.next_block().unwrap().is_none());
        assert_eq!(reader.position(), bytes.len() as u64);
        let mut reader = PieceReader::new(bytes.as_slice(), [9; 16]).unwrap();
        let listed: Vec<_> = std::iter::from_fn(|| reader.next_place().unwrap()).collect();
        assert_eq!(listed, places);
        let fake = FakeRetriever::new();
        fake.insert_piece([9; 16], bytes);
        conformance(&fake, &places, [8; 16]);
    }

    #[test]
    fn damage_and_truncation_are_errors() {
        let mut writer = PieceWriter::new(Vec::new(), [9; 16]).unwrap();
        writer.put(Block::raw(&b"hello"[..]).unwrap()).unwrap();
        writer.put(Block::raw(&b"world"[..]).unwrap()).unwrap();
        let bytes = writer.finish().unwrap();
        let read_all = |bytes: &[u8]| -> Result<usize, CarError> {
            let mut reader = PieceReader::new(bytes, [9; 16])?;
            let mut count = 0;
            while reader.next_block()?.is_some() {
                count += 1;
            }
            Ok(count)
        };
        assert_eq!(read_all(&bytes).unwrap(), 2);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x80;
            assert!(read_all(&changed).is_err(), "byte {at}");
        }
        let boundaries = [HEADER.len(), HEADER.len() + 42, bytes.len()];
        for len in 0..bytes.len() {
            assert_eq!(read_all(&bytes[..len]).is_ok(), boundaries.contains(&len), "length {len}");
        }
    }

    proptest::proptest! {
        #[test]
        fn reading_is_total(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            for input in [bytes.clone(), [HEADER, &bytes].concat()] {
                let Ok(mut reader) = PieceReader::new(input.as_slice(), [0; 16]) else { continue };
                while let Ok(Some(_)) = reader.next_block() {}
            }
        }
    }
}
