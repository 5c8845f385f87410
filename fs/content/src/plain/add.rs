//! Adding: bytes, names and link targets become blocks.
//!
//! Children come before parents. What is added keeps in memory one chunk, one unfinished node for each level of a file, and the
//! entries of one folder.

use super::{PlainError, Profile};
use crate::block::{Block, SinkError};
use crate::unixfs::Levels;
use cid::Cid;
use rust_unixfs::dir::builder::{BufferingTreeBuilder, TreeOptions};
use rust_unixfs::file::adder::FileBranchLink;
use unsigned_varint::encode as varint;

/// Where blocks go.
pub type Sink<'a> = dyn FnMut(Block) -> Result<(), SinkError> + 'a;

/// What was added, as its folder links it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Added {
    /// The root, as the profile writes it.
    pub cid: Cid,
    /// Bytes of all blocks below and of its own, counted once for each link.
    pub tsize: u64,
    /// Bytes of content.
    pub size: u64,
}

/// Above this a folder becomes a HAMT.
const SHARD_BYTES: u64 = 256 << 10;

/// UnixFS's numbers.
const KIND_FILE: u8 = 2;
const KIND_SYMLINK: u8 = 4;
/// Of dag-pb: field 1, bytes.
const TAG_NODE_DATA: u8 = 0x0a;
/// Of UnixFS: fields 1 (number), 2 (bytes), 3 (number).
const TAG_KIND: u8 = 0x08;
const TAG_DATA: u8 = 0x12;
const TAG_FILESIZE: u8 = 0x18;

/// Adds one file, streaming.
pub struct FileAdder {
    profile: Profile,
    chunk: Vec<u8>,
    levels: Levels,
    size: u64,
}

impl FileAdder {
    /// An empty file so far.
    pub fn new(profile: Profile) -> Self {
        let levels = Levels::new(profile.file_links_max(), profile.version());
        Self { profile, chunk: Vec::new(), levels, size: 0 }
    }

    /// The next bytes of the file.
    pub fn push(&mut self, mut bytes: &[u8], sink: &mut Sink<'_>) -> Result<(), PlainError> {
        while !bytes.is_empty() {
            let room = self.profile.chunk_bytes().saturating_sub(self.chunk.len());
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.chunk.extend_from_slice(now);
            bytes = rest;
            if now.len() == room {
                self.leaf(sink)?;
            }
        }
        Ok(())
    }

    fn leaf(&mut self, sink: &mut Sink<'_>) -> Result<(), PlainError> {
        let blocksize = self.chunk.len() as u64;
        let block = match self.profile {
            Profile::V0 => Block::dag_pb(simple_node(KIND_FILE, &self.chunk, Some(blocksize)))?,
            Profile::V1 => Block::raw(self.chunk.clone())?,
        };
        self.chunk.clear();
        self.size = self.size.saturating_add(blocksize);
        let cid = self.profile.cid_of(&block);
        let link = FileBranchLink { cid, blocksize, tsize: u64::from(block.len()) };
        sink(block)?;
        self.levels.push(link, sink).map_err(|error| PlainError::unixfs(&cid, error))
    }

    /// The end of the file.
    pub fn finish(mut self, sink: &mut Sink<'_>) -> Result<Added, PlainError> {
        if !self.chunk.is_empty() || self.size == 0 {
            self.leaf(sink)?;
        }
        let sample = self.profile.sample_root();
        let root = self.levels.finish(sink).map_err(|error| PlainError::unixfs(&sample, error))?;
        let root = root.ok_or_else(|| PlainError::malformed(&sample, "a file without a leaf"))?;
        Ok(Added { cid: root.cid, tsize: root.tsize, size: self.size })
    }
}

/// Adds a link to `target`, which is kept as it is.
pub fn symlink(profile: Profile, target: &[u8], sink: &mut Sink<'_>) -> Result<Added, PlainError> {
    let block = Block::dag_pb(simple_node(KIND_SYMLINK, target, None))?;
    let added = Added { cid: profile.cid_of(&block), tsize: u64::from(block.len()), size: 0 };
    sink(block)?;
    Ok(added)
}

/// Adds a folder of what was added before. Names in any order, no one twice.
pub fn directory(
    profile: Profile,
    entries: &[(String, Added)],
    sink: &mut Sink<'_>,
) -> Result<Added, PlainError> {
    let mut options = TreeOptions::default();
    options.wrap_with_directory();
    options.cid_version(profile.version());
    options.block_size_limit(None);
    options.shard_threshold(match profile {
        Profile::V0 => Some(SHARD_BYTES),
        // The builder estimates by names and CIDs only; here the block itself is measured.
        Profile::V1 if flat_bytes(entries) > SHARD_BYTES => Some(0),
        Profile::V1 => None,
    });
    let mut builder = BufferingTreeBuilder::new(options);
    let mut size = 0u64;
    for (name, added) in entries {
        check_name(name)?;
        size = size.saturating_add(added.size);
        builder.put_link(name, added.cid, added.tsize).map_err(|_| PlainError::Name(name.clone()))?;
    }
    let mut root = None;
    for node in builder.build() {
        let failed = |error: rust_unixfs::dir::builder::TreeConstructionFailed| {
            PlainError::malformed(&profile.sample_root(), error.to_string())
        };
        let node = node.map_err(failed)?;
        let block = Block::dag_pb(Vec::from(node.block))?;
        root = Some(Added { cid: profile.cid_of(&block), tsize: node.total_size, size });
        sink(block)?;
    }
    root.ok_or_else(|| PlainError::malformed(&profile.sample_root(), "a folder without a node"))
}

/// Refuses what no entry of a folder on a disk can be called.
pub fn check_name(name: &str) -> Result<(), PlainError> {
    let bad = name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']);
    if bad { Err(PlainError::Name(name.to_owned())) } else { Ok(()) }
}

/// The block of a folder that is not sharded.
fn flat_bytes(entries: &[(String, Added)]) -> u64 {
    let number = |value: u64| varint::u64(value, &mut varint::u64_buffer()).len();
    // A field of bytes: its tag, its length, itself.
    let field = |len: usize| 1 + number(len as u64) + len;
    let links = entries.iter().map(|(name, added)| {
        field(field(added.cid.encoded_len()) + field(name.len()) + 1 + number(added.tsize)) as u64
    });
    // The UnixFS message of a folder has two bytes.
    links.sum::<u64>() + 4
}

/// A dag-pb node without links around a UnixFS message: kind, bytes (left out where there are none), size.
fn simple_node(kind: u8, data: &[u8], filesize: Option<u64>) -> Vec<u8> {
    let mut buffer = varint::u64_buffer();
    let mut message = Vec::with_capacity(data.len() + 24);
    message.extend_from_slice(&[TAG_KIND, kind]);
    if !data.is_empty() {
        message.push(TAG_DATA);
        message.extend_from_slice(varint::u64(data.len() as u64, &mut buffer));
        message.extend_from_slice(data);
    }
    if let Some(size) = filesize {
        message.push(TAG_FILESIZE);
        message.extend_from_slice(varint::u64(size, &mut buffer));
    }
    let mut node = Vec::with_capacity(message.len() + 8);
    node.push(TAG_NODE_DATA);
    node.extend_from_slice(varint::u64(message.len() as u64, &mut buffer));
    node.extend_from_slice(&message);
    node
}
