//! One UnixFS node, out of anyone's bytes.
//!
//! Total: whatever the bytes, the answer is a node or an error. What a node claims about its children (how many bytes, which
//! names) is for [`super::walk`] to hold them to.

use super::PlainError;
use crate::block::{CODEC_DAG_PB, CODEC_RAW};
use crate::unixfs::UnixfsError;
use crate::unixfs::pb::{self, PbNode, UnixfsData};
use bytes::Bytes;
use cid::Cid;

const KIND_RAW: u64 = 0;
const KIND_DIRECTORY: u64 = 1;
const KIND_FILE: u64 = 2;
const KIND_SYMLINK: u64 = 4;
const KIND_SHARD: u64 = 5;
/// murmur3-x64-64: the one hash that HAMTs are made with.
const HASH_MURMUR3: u64 = 0x22;
/// Buckets of a shard, at least and at most: what other implementations accept.
const FANOUT_MIN: u64 = 8;
const FANOUT_MAX: u64 = 1024;

/// A node, understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    /// A file, or a part of one: its own bytes, then those of its children.
    File {
        /// Its own bytes.
        data: Bytes,
        /// Parts in order.
        children: Vec<Child>,
        /// All bytes of it.
        size: u64,
    },
    /// A folder.
    Directory {
        /// Names and what they stand for.
        entries: Vec<(String, Cid)>,
    },
    /// A part of a large folder.
    Shard(Shard),
    /// A link.
    Symlink {
        /// Where it leads.
        target: Vec<u8>,
    },
}

/// A part of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Child {
    /// The node.
    pub cid: Cid,
    /// Bytes of the file below it, as its parent says.
    pub size: u64,
}

/// A part of a large folder: entries, and further parts, in buckets by the names' hashes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shard {
    /// Bits of the hash that choose a bucket here.
    pub bits: u32,
    /// In the order of the buckets.
    pub slots: Vec<Slot>,
}

/// What stands in a bucket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Slot {
    /// One entry.
    Entry {
        /// The bucket.
        bucket: u64,
        /// Its name.
        name: String,
        /// What it stands for.
        cid: Cid,
    },
    /// A further part.
    Shard {
        /// The bucket.
        bucket: u64,
        /// The part.
        cid: Cid,
    },
}

impl Node {
    /// Understands a block's bytes under the codec that `cid` says.
    pub fn decode(cid: &Cid, bytes: Bytes) -> Result<Node, PlainError> {
        match cid.codec() {
            CODEC_RAW => {
                let size = bytes.len() as u64;
                Ok(Node::File { data: bytes, children: Vec::new(), size })
            }
            CODEC_DAG_PB => decode_pb(&bytes).map_err(|error| PlainError::unixfs(cid, error)),
            _ => Err(crate::block::BlockError::UnsupportedCid(Box::new(*cid)).into()),
        }
    }

    /// Everything that it links, in order.
    pub fn links(&self) -> Vec<Cid> {
        match self {
            Node::File { children, .. } => children.iter().map(|child| child.cid).collect(),
            Node::Directory { entries } => entries.iter().map(|(_, cid)| *cid).collect(),
            Node::Shard(shard) => shard
                .slots
                .iter()
                .map(|slot| match slot {
                    Slot::Entry { cid, .. } | Slot::Shard { cid, .. } => *cid,
                })
                .collect(),
            Node::Symlink { .. } => Vec::new(),
        }
    }
}

fn decode_pb(bytes: &Bytes) -> Result<Node, UnixfsError> {
    let node = pb::read_node(bytes)?;
    let message = pb::read_unixfs(node.data)?;
    match message.kind {
        Some(KIND_FILE | KIND_RAW) => file(&node, &message, bytes),
        Some(KIND_DIRECTORY) => {
            let entries = node.links.iter().map(|link| Ok((text(link.name)?, link.cid)));
            Ok(Node::Directory { entries: entries.collect::<Result<_, UnixfsError>>()? })
        }
        Some(KIND_SHARD) => shard(&node, &message),
        Some(KIND_SYMLINK) if node.links.is_empty() => {
            Ok(Node::Symlink { target: message.data.unwrap_or_default().to_vec() })
        }
        _ => Err(pb::malformed("a kind of node that is neither file, folder nor link")),
    }
}

fn file(node: &PbNode<'_>, message: &UnixfsData<'_>, bytes: &Bytes) -> Result<Node, UnixfsError> {
    if node.links.len() != message.blocksizes.len() {
        return Err(pb::malformed("a file's parts and their sizes differ in number"));
    }
    let data = message.data.map_or_else(Bytes::new, |data| bytes.slice_ref(data));
    let parts = node.links.iter().zip(&message.blocksizes);
    let children: Vec<Child> = parts.map(|(link, &size)| Child { cid: link.cid, size }).collect();
    let size = children.iter().try_fold(data.len() as u64, |sum, child| sum.checked_add(child.size));
    let size = size.ok_or_else(|| pb::malformed("a file of more bytes than can be counted"))?;
    if message.filesize.is_some_and(|said| said != size) {
        return Err(pb::malformed("a file that is not as long as its parts"));
    }
    Ok(Node::File { data, children, size })
}

fn shard(node: &PbNode<'_>, message: &UnixfsData<'_>) -> Result<Node, UnixfsError> {
    let fanout = message.fanout.unwrap_or_default();
    let sound = fanout.is_power_of_two() && (FANOUT_MIN..=FANOUT_MAX).contains(&fanout);
    if !sound || message.hash_type != Some(HASH_MURMUR3) {
        return Err(pb::malformed("a sharded folder of another hash or width than are used"));
    }
    let digits = format!("{:X}", fanout - 1).len();
    let mut slots = Vec::with_capacity(node.links.len());
    for link in &node.links {
        let name = text(link.name)?;
        let no_bucket = || pb::malformed("an entry of a sharded folder without its bucket");
        let (prefix, rest) = name.split_at_checked(digits).ok_or_else(no_bucket)?;
        let bucket = u64::from_str_radix(prefix, 16).map_err(|_| no_bucket())?;
        if bucket >= fanout {
            return Err(no_bucket());
        }
        slots.push(match rest {
            "" => Slot::Shard { bucket, cid: link.cid },
            name => Slot::Entry { bucket, name: name.to_owned(), cid: link.cid },
        });
    }
    Ok(Node::Shard(Shard { bits: fanout.trailing_zeros(), slots }))
}

fn text(name: &[u8]) -> Result<String, UnixfsError> {
    String::from_utf8(name.to_vec()).map_err(|_| pb::malformed("a name that is no UTF-8"))
}
