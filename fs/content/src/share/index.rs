//! What a private link shows: names, attributes, and of each file's chunks the block, its key and its place.
//!
//! ```text
//! index  = DAG-CBOR { version 1, suite 1, pieces [id 16], entries [entry] }
//! entry  = { k: 1 file | 2 folder | 3 link, n: name bytes, p: parent's number, m: permissions, t: [seconds, nanoseconds],
//!            s: size, l: log2 of the chunk's size (of a file), g: a link's target, c: [chunk] }
//! chunk  = [number, digest 32, key 32, codec, plain length, piece's number, offset, length]
//! ```
//!
//! Entry 0 is what was shared; each other one's parent is a folder before it. Promises: of an index that was read every name can be
//! made, once, below one new name; nothing in it leads elsewhere, and its sizes fit each other. Holes have no chunks.

use std::collections::HashSet;

use crate::block::{BlockAt, CODEC_RAW, PieceId, cid_from_digest};
use crate::chunk::{ChunkKey, Codec};
use crate::dagcbor::{self, FormatError};
use crate::keys::SecretKey32;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

const WHAT: &str = "a link's index";
const VERSION: u64 = 1;
const SUITE: u64 = 1;
/// The longest index: about 100,000 chunks, 25 GB of large files.
pub const INDEX_BYTES_MAX: usize = 8 << 20;
const NAME_BYTES_MAX: usize = 255;
const TARGET_BYTES_MAX: usize = 4095;
const BLOCK_BYTES_MAX: u32 = 2 << 20;
const CHUNK_LOG2: std::ops::RangeInclusive<u8> = 12..=20;

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum EntryKind {
    /// Bytes.
    File,
    /// Entries.
    Folder,
    /// A symbolic link, as it is.
    Link,
}

impl From<EntryKind> for u8 {
    fn from(kind: EntryKind) -> u8 {
        match kind {
            EntryKind::File => 1,
            EntryKind::Folder => 2,
            EntryKind::Link => 3,
        }
    }
}

impl TryFrom<u8> for EntryKind {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<EntryKind, &'static str> {
        match number {
            1 => Ok(EntryKind::File),
            2 => Ok(EntryKind::Folder),
            3 => Ok(EntryKind::Link),
            _ => Err("an unknown kind of entry"),
        }
    }
}

/// One chunk of a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SharedChunk(
    /// Its number: it begins at that many times the size of a chunk.
    pub u64,
    /// The block's digest.
    pub ByteArray<32>,
    /// What opens it.
    pub SecretKey32,
    /// How it was packed.
    pub u8,
    /// Plain bytes; what is missing of the chunk are zeros.
    pub u32,
    /// Which of the pieces.
    pub u32,
    /// Where in it.
    pub u64,
    /// Bytes of the block.
    pub u32,
);

impl SharedChunk {
    /// Its number.
    pub fn number(&self) -> u64 {
        self.0
    }

    /// The block's digest.
    pub fn digest(&self) -> &[u8; 32] {
        &self.1
    }

    /// What opens it.
    pub fn key(&self) -> ChunkKey {
        ChunkKey::from_bytes(*self.2.as_bytes())
    }

    /// How it was packed; of an index that was read it is known.
    pub fn codec(&self) -> Option<Codec> {
        Codec::from_byte(self.3)
    }

    /// Plain bytes.
    pub fn plain_len(&self) -> u32 {
        self.4
    }
}

/// A file, a folder or a link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedEntry {
    /// What it is.
    #[serde(rename = "k")]
    pub kind: EntryKind,
    /// Its name in its folder.
    #[serde(rename = "n")]
    pub name: ByteBuf,
    /// Its folder; of the first entry itself.
    #[serde(rename = "p")]
    pub parent: u32,
    /// The twelve permission bits.
    #[serde(rename = "m")]
    pub mode: u16,
    /// When it was changed, seconds and nanoseconds since 1970.
    #[serde(rename = "t")]
    pub mtime: (i64, u32),
    /// Bytes of a file.
    #[serde(rename = "s")]
    pub size: u64,
    /// log2 of the chunk's size.
    #[serde(rename = "l")]
    pub chunk_log2: u8,
    /// Where a link points.
    #[serde(rename = "g")]
    pub target: ByteBuf,
    /// In ascending order.
    #[serde(rename = "c")]
    pub chunks: Vec<SharedChunk>,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareIndex {
    version: u64,
    suite: u64,
    pieces: Vec<ByteArray<16>>,
    /// What was shared, folders before what is in them.
    pub entries: Vec<SharedEntry>,
}

impl Default for ShareIndex {
    fn default() -> Self {
        Self { version: VERSION, suite: SUITE, pieces: Vec::new(), entries: Vec::new() }
    }
}

impl ShareIndex {
    /// The number of a piece in it, which it has from now on.
    pub fn piece(&mut self, id: &PieceId) -> u32 {
        // The newest is the likeliest: blocks of one folder lie together.
        let found = self.pieces.iter().rposition(|known| **known == *id);
        let number = found.unwrap_or_else(|| {
            self.pieces.push(ByteArray::new(*id));
            self.pieces.len() - 1
        });
        u32::try_from(number).unwrap_or(u32::MAX)
    }

    /// The pieces in which its blocks lie.
    pub fn pieces(&self) -> impl Iterator<Item = PieceId> + '_ {
        self.pieces.iter().map(|id| **id)
    }

    /// Where a chunk's block lies; of an index that was read every chunk's does somewhere.
    pub fn place(&self, chunk: &SharedChunk) -> Option<BlockAt> {
        let piece = **self.pieces.get(chunk.5 as usize)?;
        let cid = cid_from_digest(CODEC_RAW, chunk.digest());
        Some(BlockAt { cid, piece, offset: chunk.6, len: chunk.7 })
    }

    /// All chunks.
    pub fn chunks(&self) -> impl Iterator<Item = &SharedChunk> {
        self.entries.iter().flat_map(|entry| &entry.chunks)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.size))
    }

    /// The same with every block where `find` says that it lies now; nothing if one is nowhere.
    pub fn moved<E>(
        &self,
        mut find: impl FnMut(&[u8; 32]) -> Result<Option<BlockAt>, E>,
    ) -> Result<Option<ShareIndex>, E> {
        let mut moved = ShareIndex { entries: self.entries.clone(), ..ShareIndex::default() };
        let mut entries = std::mem::take(&mut moved.entries);
        for chunk in entries.iter_mut().flat_map(|entry| &mut entry.chunks) {
            let Some(at) = find(&chunk.1)? else { return Ok(None) };
            (chunk.5, chunk.6, chunk.7) = (moved.piece(&at.piece), at.offset, at.len);
        }
        moved.entries = entries;
        Ok(Some(moved))
    }

    /// As it is sealed.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        self.check()?;
        let bytes = dagcbor::encode(WHAT, self)?;
        match bytes.len() {
            len if len > INDEX_BYTES_MAX => {
                Err(FormatError::TooLarge { what: WHAT, len, max: INDEX_BYTES_MAX })
            }
            _ => Ok(bytes),
        }
    }

    /// From what the owner of the link sealed: a stranger, to whoever was given it.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() > INDEX_BYTES_MAX {
            return Err(FormatError::TooLarge { what: WHAT, len: bytes.len(), max: INDEX_BYTES_MAX });
        }
        let found = dagcbor::peek_version(WHAT, bytes)?;
        dagcbor::check_version(WHAT, found.version, VERSION)?;
        dagcbor::check_version(WHAT, found.suite, SUITE)?;
        let index: Self = dagcbor::decode(WHAT, bytes, INDEX_BYTES_MAX)?;
        index.check()?;
        Ok(index)
    }

    fn check(&self) -> Result<(), FormatError> {
        let bad = |why: &str| Err(FormatError::malformed(WHAT, why));
        if self.entries.is_empty() {
            return bad("nothing in it");
        }
        let mut names: HashSet<(u32, &[u8])> = HashSet::with_capacity(self.entries.len());
        for (n, entry) in self.entries.iter().enumerate() {
            if !is_name(&entry.name)
                || !names.insert((if n == 0 { u32::MAX } else { entry.parent }, &entry.name))
            {
                return bad("a name that cannot be, or stands twice");
            }
            let below = usize::try_from(entry.parent).unwrap_or(usize::MAX);
            let folder = self.entries.get(below).is_some_and(|parent| parent.kind == EntryKind::Folder);
            if (n == 0 && below != 0) || (n > 0 && (below >= n || !folder)) {
                return bad("an entry in no folder before it");
            }
            if entry.mode & !0o7777 != 0 || entry.mtime.1 >= 1_000_000_000 {
                return bad("permissions or a time that cannot be");
            }
            match entry.kind {
                EntryKind::File if entry.target.is_empty() => self.check_file(entry)?,
                EntryKind::Folder if entry.target.is_empty() && is_plain(entry) => {}
                EntryKind::Link if is_target(&entry.target) && is_plain(entry) => {}
                _ => return bad("an entry with what its kind does not have"),
            }
        }
        Ok(())
    }

    fn check_file(&self, entry: &SharedEntry) -> Result<(), FormatError> {
        let bad = |why: &str| Err(FormatError::malformed(WHAT, why));
        if !CHUNK_LOG2.contains(&entry.chunk_log2) || i64::try_from(entry.size).is_err() {
            return bad("the size of a file");
        }
        let chunk_bytes = 1u64 << entry.chunk_log2;
        let mut next = 0;
        for chunk in &entry.chunks {
            let inside = chunk.0.checked_mul(chunk_bytes).is_some_and(|start| start < entry.size);
            if chunk.0 < next || !inside || u64::from(chunk.4) > chunk_bytes {
                return bad("chunks that do not fit their file");
            }
            let end = chunk.6.checked_add(chunk.7.into());
            let placed =
                (chunk.5 as usize) < self.pieces.len() && end.is_some() && chunk.7 <= BLOCK_BYTES_MAX;
            if !placed || chunk.codec().is_none() {
                return bad("a chunk that lies nowhere, or was packed in a way that is unknown here");
            }
            next = chunk.0 + 1;
        }
        Ok(())
    }
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| *byte == 0 || *byte == b'/')
}

fn is_target(target: &[u8]) -> bool {
    !target.is_empty() && target.len() <= TARGET_BYTES_MAX && !target.contains(&0)
}

/// Without what only files have.
fn is_plain(entry: &SharedEntry) -> bool {
    entry.size == 0 && entry.chunk_log2 == 0 && entry.chunks.is_empty()
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(kind: EntryKind, name: &[u8], parent: u32) -> SharedEntry {
        SharedEntry {
            kind,
            name: ByteBuf::from(name),
            parent,
            mode: 0o644,
            mtime: (1_800_000_000, 7),
            size: 0,
            chunk_log2: 0,
            target: ByteBuf::new(),
            chunks: Vec::new(),
        }
    }

    pub(crate) fn sample() -> ShareIndex {
        let mut index = ShareIndex::default();
        let piece = index.piece(&[7; 16]);
        index.entries.push(entry(EntryKind::Folder, b"shared", 0));
        let chunk = |number, digest| {
            let (digest, key) = (ByteArray::new([digest; 32]), SecretKey32::from_bytes([9; 32]));
            SharedChunk(number, digest, key, 1, 5000, piece, 99, 4100)
        };
        let chunks = vec![chunk(0, 1), chunk(3, 2)];
        let file = entry(EntryKind::File, b"a \xff file", 0);
        index.entries.push(SharedEntry { size: 900_000, chunk_log2: 18, chunks, ..file });
        let link = entry(EntryKind::Link, b"link", 0);
        index.entries.push(SharedEntry { target: ByteBuf::from(b"../elsewhere"), ..link });
        index.entries.push(SharedEntry { mtime: (-5, 0), ..entry(EntryKind::Folder, b"below", 0) });
        index.entries.push(SharedEntry { chunk_log2: 18, ..entry(EntryKind::File, b"empty", 3) });
        index
    }

    #[test]
    fn an_index_comes_back_and_says_where_its_blocks_lie() {
        let index = sample();
        let bytes = index.encode().unwrap();
        crate::golden::check("share-index", &data_encoding::HEXLOWER.encode(&bytes));
        assert_eq!(ShareIndex::decode(&bytes).unwrap(), index);
        for at in 0..bytes.len() {
            assert!(ShareIndex::decode(&bytes[..at]).is_err(), "{at} bytes");
        }
        let chunk = index.chunks().nth(1).unwrap();
        let at = index.place(chunk).unwrap();
        assert_eq!((at.piece, at.offset, at.len, index.bytes()), ([7; 16], 99, 4100, 900_000));
        let moved = |digest: &[u8; 32]| {
            let cid = cid_from_digest(CODEC_RAW, digest);
            Ok::<_, ()>(Some(BlockAt { cid, piece: [8; 16], offset: u64::from(digest[0]), len: 4100 }))
        };
        let moved = index.moved(moved).unwrap().unwrap();
        assert_eq!(moved.pieces().collect::<Vec<_>>(), [[8; 16]]);
        assert_eq!(moved.place(moved.chunks().next().unwrap()).unwrap().offset, 1);
        assert_eq!(moved.moved(|_| Ok::<_, ()>(None)), Ok(None));
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        let breaks: [fn(&mut ShareIndex); 19] = [
            |i| i.entries.clear(),
            |i| i.entries[1].name = ByteBuf::from(b".."),
            |i| i.entries[1].name = ByteBuf::from(b"a/b"),
            |i| i.entries[0].name = ByteBuf::from(b""),
            |i| i.entries[0].name = ByteBuf::from(b"."),
            |i| i.entries[1].name = ByteBuf::from(vec![b'x'; 256]),
            |i| i.entries[2].name = i.entries[1].name.clone(),
            // Into a link, into a file, into itself, into a later one, into nothing.
            |i| i.entries[4].parent = 2,
            |i| i.entries[4].parent = 1,
            |i| i.entries[3].parent = 3,
            |i| i.entries[2].parent = 3,
            |i| i.entries[4].parent = 9,
            |i| i.entries[2].target = ByteBuf::new(),
            |i| i.entries[3].size = 5,
            |i| i.entries[1].chunks.swap(0, 1),
            |i| i.entries[1].size = 3 << 18,
            |i| i.entries[1].chunks[0].5 = 1,
            |i| i.entries[1].chunks[0].3 = 77,
            |i| i.entries[1].mode = 0o10_000,
        ];
        for (n, change) in breaks.iter().enumerate() {
            let mut index = sample();
            change(&mut index);
            assert!(index.encode().is_err(), "{n}");
            let bytes = dagcbor::encode(WHAT, &index).unwrap();
            assert!(ShareIndex::decode(&bytes).is_err(), "{n}");
        }
        let newer = ShareIndex { version: 2, ..sample() };
        let newer = dagcbor::encode(WHAT, &newer).unwrap();
        assert!(matches!(ShareIndex::decode(&newer), Err(FormatError::Newer { .. })));
    }
}
