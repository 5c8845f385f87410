//! Files' UnixFS DAGs, brought up to date node by node.
//!
//! Owns: the `dag` rows and the dag-pb blocks that they name. Promises: after [`update`] the rows are a function of the file's chunk rows
//! alone; a changed chunk costs one node for each level. Refuses: files beyond [`LEVELS_MAX`] (none: 174^8 chunks are more than 2^64 bytes).
//!
//!     chunk rows   0 1 2 … 173 | 174 … 347 | 348 …
//!     level 1          0       |     1     |  2          one node for 174 positions, holes left out
//!     level 2                  0                         the lowest level with one position only is the root

use std::collections::BTreeSet;

use bytes::Bytes;
use holdfast_content::block::{Block, BlockSink, CODEC_DAG_PB, CODEC_RAW, Link, cid_from_digest, digest_of};
use holdfast_content::unixfs;
use holdfast_store::Table;

use super::overlay::{Overlaid, Overlay};
use crate::drive::error::DriveError;
use crate::pieces::rows::DagRow;
use crate::rows::{ChunkRow, Ino, View, keys};

/// Links of a node, as in every UnixFS importer's balanced layout.
pub(crate) const FANOUT: u64 = 174;
/// More levels than a file of 2^64 bytes has.
const LEVELS_MAX: u8 = 9;

/// Brings one file's DAG rows up to date. `changed` are the numbers of chunks that were added, replaced or removed.
///
/// New blocks go to `sink`, new rows into `new`.
pub(crate) fn update(
    cut: &View<'_, holdfast_store::Snapshot>,
    new: &mut Overlay,
    ino: Ino,
    changed: &BTreeSet<u64>,
    sink: &mut dyn BlockSink,
) -> Result<(), DriveError> {
    let (_, end) = keys::of_inode(ino);
    let old_levels = root_row(cut, ino)?.map_or(0, |row| row.levels);
    if old_levels == 0 && changed.iter().all(|n| *n == 0) {
        // It was a leaf at most, and is: most files are.
        return Ok(());
    }
    let mut dirty: BTreeSet<u64> = changed.iter().map(|n| n / FANOUT).collect();
    let above_first = Overlaid { cut, new }.any(Table::Chunk, &keys::chunk(ino, 1), &end)?;
    if !above_first {
        return clear(cut, new, ino);
    }
    if old_levels == 0 {
        // Without DAG rows so far, the leaf that was the whole file comes under a node too.
        dirty.insert(0);
    }
    let mut level = 1;
    loop {
        for &index in &dirty {
            let node = node(&Overlaid { cut, new }, ino, level, index, sink)?;
            match node {
                Some(row) => new.put(Table::Dag, &DagRow::key(ino, level, index), row.encode()),
                None => new.delete(Table::Dag, &DagRow::key(ino, level, index)),
            }
        }
        let behind = DagRow::key(ino, level + 1, 0);
        if !(Overlaid { cut, new }).any(Table::Dag, &DagRow::key(ino, level, 1), &behind)? {
            break;
        }
        dirty = dirty.iter().map(|index| index / FANOUT).collect();
        if level >= old_levels {
            dirty.insert(0);
        }
        level += 1;
        if level > LEVELS_MAX {
            return Err(DriveError::Limit(format!("inode {ino} has too many chunks")));
        }
    }
    for gone in level + 1..=old_levels {
        new.delete(Table::Dag, &DagRow::key(ino, gone, 0));
    }
    let top = Overlaid { cut, new }.get(Table::Dag, &DagRow::key(ino, level, 0))?;
    let top = top.ok_or_else(|| DriveError::damaged("file DAG", format!("inode {ino} has no top node")))?;
    let root = DagRow { levels: level, ..DagRow::decode(&top)? };
    new.put(Table::Dag, &DagRow::key(ino, 0, 0), root.encode());
    Ok(())
}

/// The root's row as of the cut.
fn root_row(cut: &View<'_, holdfast_store::Snapshot>, ino: Ino) -> Result<Option<DagRow>, DriveError> {
    let row = cut.get(Table::Dag, &DagRow::key(ino, 0, 0))?;
    Ok(row.map(|row| DagRow::decode(&row)).transpose()?)
}

/// Takes away all rows: the file is empty, or one leaf.
fn clear(cut: &View<'_, holdfast_store::Snapshot>, new: &mut Overlay, ino: Ino) -> Result<(), DriveError> {
    const PAGE: usize = 1024;
    let (start, end) = keys::of_inode(ino);
    let mut from = start.to_vec();
    loop {
        let page = cut.range(Table::Dag, &from, &end, PAGE)?;
        let last = page.len() < PAGE;
        for (key, _) in page {
            new.delete(Table::Dag, &key);
            from = key;
            from.push(0);
        }
        if last {
            return Ok(());
        }
    }
}

/// Builds one node from the rows below it; `None` when there are none.
fn node(
    rows: &Overlaid<'_>,
    ino: Ino,
    level: u8,
    index: u64,
    sink: &mut dyn BlockSink,
) -> Result<Option<DagRow>, DriveError> {
    let (from, to) = (index.saturating_mul(FANOUT), index.saturating_add(1).saturating_mul(FANOUT));
    let children = if level == 1 {
        let chunks = rows.all(Table::Chunk, &keys::chunk(ino, from), &keys::chunk(ino, to))?;
        chunks.iter().map(|(_, row)| leaf(row)).collect::<Result<Vec<_>, _>>()?
    } else {
        let (start, end) = (DagRow::key(ino, level - 1, from), DagRow::key(ino, level - 1, to));
        let nodes = rows.all(Table::Dag, &start, &end)?;
        nodes.iter().map(|(_, row)| inner(row)).collect::<Result<Vec<_>, _>>()?
    };
    if children.is_empty() {
        return Ok(None);
    }
    let data = children.iter().map(|(_, data)| data).sum();
    let below: u64 = children.iter().map(|(link, _)| link.tsize).sum();
    let block: Block =
        unixfs::inner_node(&children).map_err(|error| DriveError::damaged("file DAG", error))?;
    let cumulative = below + u64::from(block.len());
    let digest = digest_of(block.cid())?;
    sink.put(block)?;
    Ok(Some(DagRow { dag_pb: true, levels: 0, digest, cumulative, data }))
}

fn leaf(row: &Bytes) -> Result<(Link, u64), DriveError> {
    let row = ChunkRow::decode(row)?;
    let len = u64::from(row.block_len);
    Ok((Link { cid: cid_from_digest(CODEC_RAW, &row.digest), tsize: len }, len))
}

fn inner(row: &Bytes) -> Result<(Link, u64), DriveError> {
    let row = DagRow::decode(row)?;
    Ok((row.link(), row.data))
}

impl DagRow {
    /// The link to this node.
    pub(crate) fn link(&self) -> Link {
        let codec = if self.dag_pb { CODEC_DAG_PB } else { CODEC_RAW };
        Link { cid: cid_from_digest(codec, &self.digest), tsize: self.cumulative }
    }
}
