//! The balanced DAG of a file: raw leaves below dag-pb `File` nodes of up to [`BRANCH_LINKS`] links.
//!
//! The layout is the one that kubo and Helia give to a file added with raw leaves: leaf `i` is child `i % 174` of branch
//! `i / 174`, and so on upwards until one node is left. A file of one leaf is that leaf. `filesize` and `blocksizes` count
//! ciphertext, since that is what a UnixFS reader gets.

use super::UnixfsError;
use super::pb::{malformed, read_node, read_unixfs};
use crate::block::{Block, BlockSink, CODEC_DAG_PB, Link, SinkError};
use cid::{Cid, Version};
use multihash_codetable::Code;
use rust_unixfs::file::adder::{FileBranchLink, rebuild_file_branch};
use std::collections::BTreeMap;

/// Links of a full inner node: UnixFS's usual number.
pub const BRANCH_LINKS: usize = 174;
/// UnixFS's number of files.
const FILE_KIND: u64 = 2;
/// 174^8 leaves are more than 2^59: no file needs more levels.
const LEVELS_MAX: usize = 8;

/// A finished file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileDag {
    /// The root, with the cumulative size of the DAG.
    pub root: Link,
    /// Bytes of ciphertext: what UnixFS calls the file's size.
    pub filesize: u64,
    /// How many leaves it has.
    pub leaves: u64,
}

/// Builds a DAG from its leaves, streaming: it holds one unfinished node for each level.
pub struct FileBuilder<S> {
    sink: S,
    levels: Levels,
    leaves: u64,
}

impl<S: BlockSink> FileBuilder<S> {
    /// Inner nodes go to `sink`, children before parents; the leaves are there already.
    pub fn new(sink: S) -> Self {
        Self { sink, levels: Levels::new(BRANCH_LINKS, Version::V1), leaves: 0 }
    }

    /// Appends a leaf: a raw block of `len` bytes.
    pub fn push(&mut self, cid: Cid, len: u32) -> Result<(), UnixfsError> {
        self.leaves += 1;
        let size = u64::from(len);
        let sink = &mut self.sink;
        let link = FileBranchLink { cid, blocksize: size, tsize: size };
        self.levels.push(link, &mut |block| sink.put(block).map(drop))
    }

    /// Writes what is unfinished. Nothing when there was no leaf: an empty file has no DAG.
    pub fn finish(mut self) -> Result<Option<FileDag>, UnixfsError> {
        let sink = &mut self.sink;
        let root = self.levels.finish(&mut |block| sink.put(block).map(drop))?;
        Ok(root.map(|root| {
            let link = Link { cid: root.cid, tsize: root.tsize };
            FileDag { root: link, filesize: root.blocksize, leaves: self.leaves }
        }))
    }
}

/// Where finished inner nodes go.
pub(crate) type Put<'a> = dyn FnMut(Block) -> Result<(), SinkError> + 'a;

/// The unfinished nodes of a balanced DAG, from the leaves up.
pub(crate) struct Levels {
    rows: Vec<Vec<FileBranchLink>>,
    /// Links of a full node.
    width: usize,
    /// How links write the CIDs of inner nodes.
    version: Version,
}

impl Levels {
    /// No leaf yet.
    pub(crate) fn new(width: usize, version: Version) -> Self {
        Self { rows: vec![Vec::new()], width, version }
    }

    /// Appends a leaf.
    pub(crate) fn push(&mut self, leaf: FileBranchLink, put: &mut Put<'_>) -> Result<(), UnixfsError> {
        self.push_at(0, leaf, put)
    }

    fn push_at(&mut self, level: usize, link: FileBranchLink, put: &mut Put<'_>) -> Result<(), UnixfsError> {
        let mut carry = Some((level, link));
        while let Some((level, link)) = carry.take() {
            if level == self.rows.len() {
                self.rows.push(Vec::new());
            }
            let Some(row) = self.rows.get_mut(level) else { break };
            if row.len() == self.width {
                let full = std::mem::replace(row, vec![link]);
                carry = Some((level + 1, branch(&full, self.version, put)?));
            } else {
                row.push(link);
            }
        }
        Ok(())
    }

    /// Writes what is unfinished, and gives the root; nothing when there was no leaf.
    pub(crate) fn finish(mut self, put: &mut Put<'_>) -> Result<Option<FileBranchLink>, UnixfsError> {
        let mut level = 0;
        loop {
            let row = self.rows.get_mut(level).map(std::mem::take).unwrap_or_default();
            let top = level + 1 >= self.rows.len();
            match (row.as_slice(), top) {
                ([], _) => return Ok(None),
                ([only], true) => return Ok(Some(only.clone())),
                (row, _) => {
                    let link = branch(row, self.version, put)?;
                    self.push_at(level + 1, link, put)?;
                }
            }
            level += 1;
        }
    }
}

/// One inner node over given children: each one's link, and the bytes of the leaves below it.
///
/// For whoever keeps the shape of a file's DAG in rows of its own, and so leaves out holes without moving what is behind them.
pub fn inner_node(children: &[(Link, u64)]) -> Result<Block, UnixfsError> {
    if children.len() > BRANCH_LINKS {
        return Err(UnixfsError::TooManyLinks(children.len()));
    }
    let links: Vec<FileBranchLink> = children
        .iter()
        .map(|(link, data)| FileBranchLink { cid: link.cid, blocksize: *data, tsize: link.tsize })
        .collect();
    let filesize = links.iter().fold(0u64, |sum, link| sum.saturating_add(link.blocksize));
    let (_, bytes) = rebuild_file_branch(filesize, &links, Version::V1, Code::Sha2_256);
    Ok(Block::dag_pb(bytes)?)
}

/// Writes one inner node and says how it is linked.
fn branch(
    links: &[FileBranchLink],
    version: Version,
    put: &mut Put<'_>,
) -> Result<FileBranchLink, UnixfsError> {
    let (bytes, filesize) = encode_branch(links);
    let block = Block::dag_pb(bytes)?;
    let below = links.iter().fold(0u64, |sum, link| sum.saturating_add(link.tsize));
    let tsize = below.saturating_add(u64::from(block.len()));
    let cid = crate::block::written_as(block.cid(), version);
    let link = FileBranchLink { cid, blocksize: filesize, tsize };
    put(block)?;
    Ok(link)
}

/// Replaces a leaf, by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeafChange {
    /// The leaf's place among the file's leaves, from 0.
    pub at: u64,
    /// The new leaf.
    pub cid: Cid,
    /// Its length.
    pub len: u32,
}

/// Gives an inner node by CID.
pub type ReadNode<'a> = dyn FnMut(&Cid) -> Result<Block, Box<dyn std::error::Error + Send + Sync>> + 'a;

/// Replaces leaves of an existing DAG of the same number of leaves: reads and writes only the nodes above them.
///
/// `read` gives an inner node by CID. A file that grew, shrank or lost a leaf is built anew ([`FileBuilder`]), which needs
/// no reads.
pub fn update(
    dag: &FileDag,
    changes: &[LeafChange],
    read: &mut ReadNode<'_>,
    sink: &mut dyn BlockSink,
) -> Result<FileDag, UnixfsError> {
    let changes: BTreeMap<u64, FileBranchLink> = changes
        .iter()
        .map(|change| {
            let size = u64::from(change.len);
            (change.at, FileBranchLink { cid: change.cid, blocksize: size, tsize: size })
        })
        .collect();
    if changes.keys().next_back().is_some_and(|&at| at >= dag.leaves) {
        return Err(UnixfsError::Malformed("a change beyond the last leaf".to_owned()));
    }
    let mut height = 0;
    let mut span = 1u64;
    while span < dag.leaves && height < LEVELS_MAX {
        span = span.saturating_mul(BRANCH_LINKS as u64);
        height += 1;
    }
    let old = FileBranchLink { cid: dag.root.cid, blocksize: dag.filesize, tsize: dag.root.tsize };
    let root = update_node(old, height, 0, &changes, read, sink)?;
    Ok(FileDag {
        root: Link { cid: root.cid, tsize: root.tsize },
        filesize: root.blocksize,
        leaves: dag.leaves,
    })
}

/// `first` is the number of the node's first leaf. The recursion is at most [`LEVELS_MAX`] deep.
fn update_node(
    old: FileBranchLink,
    height: usize,
    first: u64,
    changes: &BTreeMap<u64, FileBranchLink>,
    read: &mut ReadNode<'_>,
    sink: &mut dyn BlockSink,
) -> Result<FileBranchLink, UnixfsError> {
    if height == 0 {
        return Ok(changes.get(&first).cloned().unwrap_or(old));
    }
    let child_span = (BRANCH_LINKS as u64).saturating_pow(height as u32 - 1);
    let span = child_span.saturating_mul(BRANCH_LINKS as u64);
    if changes.range(first..first.saturating_add(span)).next().is_none() {
        return Ok(old);
    }
    let block = read(&old.cid).map_err(UnixfsError::Source)?;
    let mut links = decode_branch(&block)?;
    for (at, link) in links.iter_mut().enumerate() {
        let start = first.saturating_add(child_span.saturating_mul(at as u64));
        *link = update_node(link.clone(), height - 1, start, changes, read, sink)?;
    }
    branch(&links, Version::V1, &mut |block| sink.put(block).map(drop))
}

/// The links of a file DAG's inner node, which must be encoded as we would.
pub(crate) fn decode_branch(block: &Block) -> Result<Vec<FileBranchLink>, UnixfsError> {
    if block.cid().codec() != CODEC_DAG_PB {
        return Err(malformed("not an inner node of a file"));
    }
    let node = read_node(block.bytes())?;
    let data = read_unixfs(node.data)?;
    let fits = node.links.len() == data.blocksizes.len() && (1..=BRANCH_LINKS).contains(&node.links.len());
    if !fits || data.kind != Some(FILE_KIND) {
        return Err(malformed("not an inner node of a file"));
    }
    let mut links = Vec::with_capacity(node.links.len());
    for (link, &blocksize) in node.links.iter().zip(&data.blocksizes) {
        let Link { cid, tsize } = link.to_link()?;
        links.push(FileBranchLink { cid, blocksize, tsize });
    }
    let (bytes, filesize) = encode_branch(&links);
    if data.filesize != Some(filesize) || block.bytes() != &bytes {
        return Err(malformed("an inner node that is not canonical"));
    }
    Ok(links)
}

/// The encoding of an inner node, and the bytes of the file below it.
fn encode_branch(links: &[FileBranchLink]) -> (Vec<u8>, u64) {
    let filesize = links.iter().fold(0u64, |sum, link| sum.saturating_add(link.blocksize));
    let (_, bytes) = rebuild_file_branch(filesize, links, Version::V1, Code::Sha2_256);
    (bytes, filesize)
}
