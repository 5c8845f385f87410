//! Ciphertext as plain UnixFS, so that any IPFS implementation can store, walk and pin a drive without reading it.
//!
//! Files are balanced DAGs over raw leaves ([`file`]); search-tree nodes and commits are UnixFS directories
//! ([`Directory`]): the entry `_` is their own ciphertext, the others link what they refer to under numbers.

mod file;
pub(crate) mod pb;

pub use file::{BRANCH_LINKS, FileBuilder, FileDag, LeafChange, ReadNode, inner_node, update};
pub(crate) use file::{Levels, decode_branch};

use crate::block::{Block, BlockError, CODEC_DAG_PB, CODEC_RAW, Link};
use bytes::Bytes;
use cid::Cid;
use ipld_dagpb::{PbLink, PbNode};
use pb::{malformed, read_node};

/// The UnixFS `Data` message of a plain directory: field 1, type Directory (1).
const DIRECTORY_DATA: [u8; 2] = [0x08, 0x01];
/// The entry that holds a node's ciphertext. Digits sort before it, so it is always the last.
pub const BODY_NAME: &str = "_";
/// A directory has no more entries: with 36-byte CIDs it stays below 1 MiB, half of what a block may have.
pub const DIRECTORY_LINKS_MAX: usize = 12_000;
/// Digits of an entry's number.
const NAME_DIGITS: usize = 5;

/// Why bytes are not one of our UnixFS nodes.
#[derive(Debug, thiserror::Error)]
pub enum UnixfsError {
    /// Not the encoding that we would give to such a node.
    #[error("not a UnixFS node of ours: {0}")]
    Malformed(String),
    /// More links than [`DIRECTORY_LINKS_MAX`].
    #[error("a directory of {0} links exceeds the limit of {DIRECTORY_LINKS_MAX}")]
    TooManyLinks(usize),
    /// The block could not be made.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// A node that is needed could not be read.
    #[error("reading an inner node: {0}")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A new node could not be written.
    #[error(transparent)]
    Sink(#[from] crate::block::SinkError),
}

/// A node of ours as a UnixFS directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Directory {
    /// The entry `_`: the node's ciphertext, a raw leaf.
    pub body: Link,
    /// What the node refers to, in its own order; the names are the positions in five digits.
    pub links: Vec<Link>,
}

impl Directory {
    /// Encodes and says how it is linked.
    pub fn encode(&self) -> Result<(Block, Link), UnixfsError> {
        if self.links.len() > DIRECTORY_LINKS_MAX {
            return Err(UnixfsError::TooManyLinks(self.links.len()));
        }
        let pb =
            |name: String, link: &Link| PbLink { cid: link.cid, name: Some(name), size: Some(link.tsize) };
        let mut links: Vec<PbLink> =
            self.links.iter().enumerate().map(|(at, link)| pb(entry_name(at), link)).collect();
        links.push(pb(BODY_NAME.to_owned(), &self.body));
        let node = PbNode { links, data: Some(Bytes::from_static(&DIRECTORY_DATA)) };
        let block = Block::dag_pb(node.into_bytes())?;
        let below = self.links.iter().fold(self.body.tsize, |sum, link| sum.saturating_add(link.tsize));
        let tsize = below.saturating_add(u64::from(block.len()));
        let link = Link { cid: *block.cid(), tsize };
        Ok((block, link))
    }

    /// Decodes the canonical encoding only.
    pub fn decode(bytes: &[u8]) -> Result<Self, UnixfsError> {
        if bytes.len() > crate::block::BLOCK_BYTES_MAX {
            return Err(BlockError::TooLarge(bytes.len()).into());
        }
        let node = read_node(bytes)?;
        let (body, entries) = node.links.split_last().ok_or_else(|| malformed("no entry"))?;
        if entries.len() > DIRECTORY_LINKS_MAX {
            return Err(UnixfsError::TooManyLinks(entries.len()));
        }
        if body.cid.codec() != CODEC_RAW {
            return Err(malformed("no body"));
        }
        let links = entries.iter().map(pb::PbLink::to_link).collect::<Result<_, _>>()?;
        // Names, order and everything else that is not kept here: equal bytes come out, or they were not ours.
        let directory = Self { body: body.to_link()?, links };
        if directory.encode()?.0.bytes() != bytes {
            return Err(malformed("not canonical"));
        }
        Ok(directory)
    }
}

fn entry_name(at: usize) -> String {
    format!("{at:0NAME_DIGITS$}")
}

/// Every link of a raw or dag-pb block, of whatever shape: for walking a DAG without understanding it.
pub fn links(block: &Block) -> Result<Vec<Cid>, UnixfsError> {
    if block.cid().codec() != CODEC_DAG_PB {
        return Ok(Vec::new());
    }
    let node = read_node(block.bytes())?;
    Ok(node.links.into_iter().map(|link| link.cid).collect())
}

#[cfg(test)]
mod tests;
