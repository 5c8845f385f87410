//! The changes that a commit applies to the namespace tree, streamed in the tree's order.
//!
//! Owns: which rows belong into a commit, their values and their links. Promises: one pass in ascending key order, O(changes); rows of inodes that are
//! gone (or have no name left) leave the tree with everything that hangs on them. Refuses nothing; the first error ends the stream and is kept.
//!
//!     rows marked since the last cut  ─┐
//!     new chunk and DAG rows ──────────┼─► merged by key ─► Edit{key, value, links}
//!     rows of inodes that are gone ────┘

use std::iter::Peekable;
use std::ops::Bound;

use bytes::Bytes;
use holdfast_content::block::{CODEC_RAW, Link, cid_from_digest};
use holdfast_content::tree::{Edit, Namespace, NodeRef, NodeSource, Tree};
use holdfast_store::{Lsn, Reads, Snapshot, Table};

use super::data::Cut;
use super::overlay::{Overlaid, Overlay};
use crate::drive::error::DriveError;
use crate::pieces::rows::DagRow;
use crate::rows::marks::ChangedKeys;
use crate::rows::{ChunkRow, Ino, InodeRow, META_NEXT_INO, META_SURVIVE, OrphanRow, inode_flags, keys};

/// Tables whose rows begin with the inode that they belong to, in the tree's order.
const OWNED: [Table; 4] = [Table::Entry, Table::Xattr, Table::Chunk, Table::Dag];

/// Inodes that a commit takes out of the tree, as ranges of numbers.
#[derive(Default)]
pub(crate) struct Gone(Vec<(Ino, Ino)>);

impl Gone {
    /// Looks through the changed inodes of a cut.
    pub(crate) fn find(cut: &Cut<'_>, after: Lsn) -> Result<Self, DriveError> {
        let mut gone = Self::default();
        let mut changed = ChangedKeys::of_table(cut.snapshot, after, Table::Inode)?;
        while let Some(key) = changed.next()? {
            let ino = keys::decode_inode(key.get(1..).unwrap_or_default())?;
            if !is_named(cut, ino)? {
                gone.push(ino);
            }
        }
        Ok(gone)
    }

    fn push(&mut self, ino: Ino) {
        match self.0.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(ino) => *last = ino,
            _ => self.0.push((ino, ino)),
        }
    }

    /// Is it one of them?
    pub(crate) fn contains(&self, ino: Ino) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < ino);
        self.0.get(at).is_some_and(|(first, _)| *first <= ino)
    }
}

/// Does the inode exist at the cut, with a name?
fn is_named(cut: &Cut<'_>, ino: Ino) -> Result<bool, DriveError> {
    let key = keys::inode(ino);
    if let Some(row) = cut.snapshot.get(Table::Orphan, &key)?
        && OrphanRow::decode(&row)? == OrphanRow::Unlinked
    {
        return Ok(false);
    }
    Ok(cut.view.contains(Table::Inode, &key)?)
}

/// The edits of one commit.
pub(crate) struct Edits<'a> {
    cut: &'a Cut<'a>,
    new: &'a Overlay,
    gone: &'a Gone,
    changed: ChangedKeys<'a, Snapshot>,
    next_changed: Option<Vec<u8>>,
    next_new: Option<Vec<u8>>,
    dead: DeadKeys<'a>,
    next_dead: Option<Bytes>,
    /// Filled by the first error; the stream ends there.
    failed: &'a mut Option<DriveError>,
    started: bool,
}

type DeadKeys<'a> = Peekable<Box<dyn Iterator<Item = Result<Bytes, DriveError>> + 'a>>;

impl<'a> Edits<'a> {
    /// Prepares the stream.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new<S: NodeSource<Namespace>>(
        cut: &'a Cut<'a>,
        after: Lsn,
        new: &'a Overlay,
        gone: &'a Gone,
        tree: &'a Tree<Namespace>,
        source: &'a S,
        old_root: Option<&'a NodeRef>,
        failed: &'a mut Option<DriveError>,
    ) -> Result<Self, DriveError> {
        let dead: Box<dyn Iterator<Item = Result<Bytes, DriveError>> + 'a> = match old_root {
            Some(root) => Box::new(dead_keys(gone, tree, source, root)),
            None => Box::new(std::iter::empty()),
        };
        Ok(Self {
            cut,
            new,
            gone,
            changed: ChangedKeys::all(cut.snapshot, after)?,
            next_changed: None,
            next_new: None,
            dead: dead.peekable(),
            next_dead: None,
            failed,
            started: false,
        })
    }

    fn step(&mut self) -> Result<Option<Edit>, DriveError> {
        if !self.started {
            self.started = true;
            self.next_changed = self.changed.next()?;
            self.next_new = self.new.next_after(Bound::Unbounded).map(<[u8]>::to_vec);
            self.next_dead = self.dead.next().transpose()?;
        }
        loop {
            let candidates =
                [self.next_changed.as_deref(), self.next_new.as_deref(), self.next_dead.as_deref()];
            let Some(key) = candidates.into_iter().flatten().min().map(<[u8]>::to_vec) else {
                return Ok(None);
            };
            let is_dead = self.next_dead.as_deref() == Some(key.as_slice());
            if self.next_changed.as_deref() == Some(key.as_slice()) {
                self.next_changed = self.changed.next()?;
            }
            if self.next_new.as_deref() == Some(key.as_slice()) {
                self.next_new = self.new.next_after(Bound::Excluded(&key)).map(<[u8]>::to_vec);
            }
            if is_dead {
                self.next_dead = self.dead.next().transpose()?;
            }
            if let Some(edit) = self.edit(key, is_dead)? {
                return Ok(Some(edit));
            }
        }
    }

    /// What becomes of one row.
    fn edit(&self, full_key: Vec<u8>, is_dead: bool) -> Result<Option<Edit>, DriveError> {
        let Some((&tag, key)) = full_key.split_first() else { return Ok(None) };
        let Some(table) = Table::from_tag(tag) else {
            return Err(DriveError::damaged("changed row", format!("table {tag}")));
        };
        let belongs = match table {
            Table::Inode | Table::Entry | Table::Xattr | Table::Chunk | Table::Dag => true,
            Table::Meta => key == META_NEXT_INO || key.starts_with(META_SURVIVE),
            _ => false,
        };
        if !belongs {
            return Ok(None);
        }
        let owner = if table == Table::Meta { 0 } else { owner_of(key)? };
        if is_dead || self.gone.contains(owner) {
            return Ok(Some(Edit::delete(full_key)));
        }
        let rows = Overlaid { cut: &self.cut.view, new: self.new };
        let Some(value) = rows.get(table, key)? else { return Ok(Some(Edit::delete(full_key))) };
        let links = links_of(table, key, &value)?;
        Ok(Some(Edit::put(full_key, value, links)))
    }
}

impl Iterator for Edits<'_> {
    type Item = Edit;

    fn next(&mut self) -> Option<Edit> {
        if self.failed.is_some() {
            return None;
        }
        match self.step() {
            Ok(edit) => edit,
            Err(error) => {
                *self.failed = Some(error);
                None
            }
        }
    }
}

/// All keys in the old tree that belong to inodes that are gone, in order: one range for each run of inode numbers and table.
fn dead_keys<'a, S: NodeSource<Namespace>>(
    gone: &'a Gone,
    tree: &'a Tree<Namespace>,
    source: &'a S,
    root: &'a NodeRef,
) -> impl Iterator<Item = Result<Bytes, DriveError>> + 'a {
    let ranges = OWNED.into_iter().flat_map(move |table| gone.0.iter().map(move |run| (table, *run)));
    ranges.flat_map(
        move |(table, (first, last))| -> Box<dyn Iterator<Item = Result<Bytes, DriveError>> + 'a> {
            let start = keys::full(table, &keys::inode(first));
            let end = keys::full(table, &keys::of_inode(last).1);
            match tree.iter(source, root, &start, Some(&end)) {
                Ok(entries) => {
                    Box::new(entries.map(|entry| entry.map(|entry| entry.key).map_err(DriveError::from)))
                }
                Err(error) => Box::new(std::iter::once(Err(error.into()))),
            }
        },
    )
}

/// The inode that a row belongs to: its key's first eight bytes.
fn owner_of(key: &[u8]) -> Result<Ino, DriveError> {
    let head = key.first_chunk::<8>().ok_or_else(|| DriveError::damaged("row", "its key is too short"))?;
    Ok(Ino::from_be_bytes(*head))
}

/// What plain UnixFS reaches through this row: the root of a file's DAG.
pub(crate) fn links_of(table: Table, key: &[u8], value: &[u8]) -> Result<Vec<Link>, DriveError> {
    match (table, key.get(8..)) {
        (Table::Chunk, Some([0, 0, 0, 0, 0, 0, 0, 0])) => {
            let row = ChunkRow::decode(value)?;
            let cid = cid_from_digest(CODEC_RAW, &row.digest);
            Ok(vec![Link { cid, tsize: u64::from(row.block_len) }])
        }
        (Table::Dag, Some([0, ..])) => Ok(vec![DagRow::decode(value)?.link()]),
        _ => Ok(Vec::new()),
    }
}

/// The inode's row with the flag that says that it has chunks, where the cut's row lacks it.
pub(crate) fn with_chunks_flag(value: &[u8]) -> Result<Option<Vec<u8>>, DriveError> {
    let mut row = InodeRow::decode(value)?;
    if row.has_chunks() {
        return Ok(None);
    }
    row.flags |= inode_flags::HAS_CHUNKS;
    Ok(Some(row.encode(row.lsn)))
}
