//! Namespace rows: their keys, their encodings, and the one way to read and to change them.
//!
//! Owns: the schema of the tables Inode, Entry, Xattr, Extent, Chunk, Orphan, Changed and of the namespace's
//! rows in Meta (`../../format/namespace.md` draws every byte).
//!
//! Promises: a read sees the store, and beneath it the attached base tree ([`BaseTree`]); a change made through
//! [`RowTxn`] leaves a tombstone where a base must be hidden and a `changed` row where a commit must look.
//!
//! Refuses: rows that do not decode (`Corrupt`), rows of a newer version (`Newer`). Knows nothing of POSIX.

pub mod base;
mod codec;
pub mod inode;
pub mod keys;
pub(crate) mod marks;
#[cfg(test)]
mod tests;
mod txn;
pub mod values;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use holdfast_store::{Lsn, Reads, Snapshot, Store, StoreError, Table};

pub use base::{BaseError, BaseTree, RowList, TOMBSTONE, is_tombstone};
pub use inode::{Ino, InodeRow, Kind, ROOT_INO, Time, inode_flags};
pub use keys::{NameKey, Tag};
pub use txn::RowTxn;
pub(crate) use txn::{mark_again, mark_sealed};
pub use values::{
    ChunkRow, EntryRow, ExtentRow, ExtentSource, NAME_BYTES_MAX, OrphanRow, XattrRow, is_valid_name,
};

/// First byte of every row.
pub const ROW_VERSION: u8 = 1;

/// Meta key of the next inode number that is not reserved (u64, little-endian). A namespace row: it is
/// marked changed and travels in commits, so that a restored drive never reuses a number.
pub const META_NEXT_INO: &[u8] = b"ns.next_ino";

/// Before an inode (u64, big-endian): Meta keys of those that have a policy of their own. Namespace rows, as the one above.
pub(crate) const META_SURVIVE: &[u8] = b"ns.survive/";
/// Behind all of them.
const META_SURVIVE_END: &[u8] = b"ns.survive0";

/// Meta key of the cut below which no mark is left (version u8, u64 big-endian). Local, in no commit.
pub(crate) const META_MARKS_FROM: &[u8] = b"seal.marks_from";

/// Rows fetched at once while walking a range of unknown length.
pub const SCAN_PAGE_ROWS: usize = 1024;

/// Why a row could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the committed tree beneath the store: {0}")]
    Base(#[from] BaseError),
    #[error("a damaged {what} row")]
    Corrupt { what: &'static str },
    #[error("a {what} row of version {found}: written by a newer Holdfast, upgrade to read it")]
    Newer { what: &'static str, found: u8 },
}

impl RowError {
    /// Whether the same call may succeed later without anybody repairing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Base(error) => matches!(error, BaseError::Unreachable(_)),
            Self::Corrupt { .. } | Self::Newer { .. } => false,
        }
    }
}

/// The namespace rows of one drive: a store, and perhaps a base tree beneath.
pub struct Rows {
    store: Store,
    base: ArcSwapOption<Arc<dyn BaseTree>>,
    names: NameKey,
    /// The last record that marked a row, as far as this process knows.
    marked: AtomicU64,
}

impl Rows {
    pub fn new(store: Store, names: NameKey, base: Option<Arc<dyn BaseTree>>) -> Self {
        Self { store, base: ArcSwapOption::from_pointee(base), names, marked: AtomicU64::new(0) }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn names(&self) -> &NameKey {
        &self.names
    }

    pub fn has_base(&self) -> bool {
        self.base.load().is_some()
    }

    /// Replaces the base: by the tree of a newer commit *before* the tombstones which it covers are removed,
    /// never after, or deleted rows would shine through.
    pub fn set_base(&self, base: Option<Arc<dyn BaseTree>>) {
        self.base.store(base.map(Arc::new));
    }

    /// The last record after which a commit has to look at something; 0: none since the start.
    pub(crate) fn marked_lsn(&self) -> Lsn {
        self.marked.load(Ordering::Acquire)
    }

    /// Notes a record that marks rows.
    pub(crate) fn note_marked(&self, lsn: Lsn) {
        self.marked.fetch_max(lsn, Ordering::AcqRel);
    }

    /// Rows as they are now.
    pub fn live(&self) -> View<'_, Store> {
        View { rows: self, source: &self.store }
    }

    /// Rows as of a snapshot of the store (and the present base).
    pub fn at<'a>(&'a self, snapshot: &'a Snapshot) -> View<'a, Snapshot> {
        View { rows: self, source: snapshot }
    }

    /// Begins a change.
    pub fn begin(&self) -> RowTxn<'_> {
        RowTxn::new(self)
    }
}

/// A way to read rows, decoded.
pub struct View<'a, S> {
    rows: &'a Rows,
    source: &'a S,
}

impl<S: Reads> View<'_, S> {
    /// One row, still encoded.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, RowError> {
        let base = self.rows.base.load();
        base::get(self.source, base.as_deref(), table, key)
    }

    /// Whether there is such a row. Without a base there are no tombstones, and nobody has to look at what the row holds.
    pub(crate) fn contains(&self, table: Table, key: &[u8]) -> Result<bool, RowError> {
        if self.rows.has_base() {
            Ok(self.get(table, key)?.is_some())
        } else {
            Ok(self.source.contains(table, key)?)
        }
    }

    /// Rows with `start <= key < end`, at most `limit`; fewer mean that the range is exhausted.
    pub fn range(&self, table: Table, start: &[u8], end: &[u8], limit: usize) -> Result<RowList, RowError> {
        let base = self.rows.base.load();
        base::range(self.source, base.as_deref(), table, start, end, limit)
    }

    pub fn inode(&self, ino: Ino) -> Result<Option<InodeRow>, RowError> {
        self.get(Table::Inode, &keys::inode(ino))?.map(|value| InodeRow::decode(&value)).transpose()
    }

    /// All of `first..=last`, at most `limit`.
    pub fn inodes(&self, first: Ino, last: Ino, limit: usize) -> Result<Vec<(Ino, InodeRow)>, RowError> {
        let (_, end) = keys::of_inode(last);
        self.range(Table::Inode, &keys::inode(first), &end, limit)?
            .into_iter()
            .map(|(key, value)| Ok((keys::decode_inode(&key)?, InodeRow::decode(&value)?)))
            .collect()
    }

    /// Those of `inos`, which lie apart: asked for together they cost less than one by one. Of the store alone.
    pub(crate) fn inodes_of(&self, inos: &[Ino]) -> Result<Vec<(Ino, InodeRow)>, RowError> {
        let keys: Vec<_> = inos.iter().map(|ino| keys::inode(*ino)).collect();
        let rows =
            self.source.multi_get(Table::Inode, &keys.iter().map(|key| &key[..]).collect::<Vec<_>>())?;
        let found = inos.iter().zip(rows).filter_map(|(ino, row)| Some((*ino, row?)));
        let found = found.filter(|(_, row)| !is_tombstone(row));
        found.map(|(ino, row)| Ok((ino, InodeRow::decode(&row)?))).collect()
    }

    pub fn entry(&self, parent: Ino, tag: Tag) -> Result<Option<EntryRow>, RowError> {
        self.get(Table::Entry, &keys::entry(parent, tag))?.map(|value| EntryRow::decode(&value)).transpose()
    }

    /// Slots of a directory from tag `from` on, tombstones included.
    pub fn entries(&self, parent: Ino, from: Tag, limit: usize) -> Result<Vec<(Tag, EntryRow)>, RowError> {
        let (_, end) = keys::of_inode(parent);
        self.range(Table::Entry, &keys::entry(parent, from), &end, limit)?
            .into_iter()
            .map(|(key, value)| Ok((keys::decode_pair(&key)?.1, EntryRow::decode(&value)?)))
            .collect()
    }

    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Option<XattrRow>, RowError> {
        let key = keys::xattr(ino, self.rows.names.xattr_tag(name));
        self.get(Table::Xattr, &key)?.map(|value| XattrRow::decode(&value)).transpose()
    }

    /// All xattrs of an inode, with their keys.
    pub fn xattrs(&self, ino: Ino) -> Result<Vec<(Vec<u8>, XattrRow)>, RowError> {
        let (start, end) = keys::of_inode(ino);
        let mut from = start.to_vec();
        let mut out = Vec::new();
        loop {
            let page = self.range(Table::Xattr, &from, &end, SCAN_PAGE_ROWS)?;
            let last = page.len() < SCAN_PAGE_ROWS;
            for (key, value) in page {
                from.clone_from(&key);
                out.push((key, XattrRow::decode(&value)?));
            }
            if last {
                return Ok(out);
            }
            from.push(0);
        }
    }

    /// Extents that begin at or after `from`. Never in the base: what is committed is in chunks.
    pub fn extents(&self, ino: Ino, from: u64, limit: usize) -> Result<Vec<(u64, ExtentRow)>, RowError> {
        let (_, end) = keys::of_inode(ino);
        base::stored(self.source, Table::Extent, &keys::extent(ino, from), &end, limit)?
            .into_iter()
            .map(|(key, value)| Ok((keys::decode_pair(&key)?.1, ExtentRow::decode(&value)?)))
            .collect()
    }

    /// All extents of `first..=last`, at most `limit`.
    pub fn extents_between(
        &self,
        first: Ino,
        last: Ino,
        limit: usize,
    ) -> Result<Vec<(Ino, u64, ExtentRow)>, RowError> {
        let (_, end) = keys::of_inode(last);
        base::stored(self.source, Table::Extent, &keys::extent(first, 0), &end, limit)?
            .into_iter()
            .map(|(key, value)| {
                let (ino, off) = keys::decode_pair(&key)?;
                Ok((ino, off, ExtentRow::decode(&value)?))
            })
            .collect()
    }

    pub fn chunk(&self, ino: Ino, n: u64) -> Result<Option<ChunkRow>, RowError> {
        self.get(Table::Chunk, &keys::chunk(ino, n))?.map(|value| ChunkRow::decode(&value)).transpose()
    }

    /// Chunks `from <= n < to`, at most `limit`.
    pub fn chunks(
        &self,
        ino: Ino,
        from: u64,
        to: u64,
        limit: usize,
    ) -> Result<Vec<(u64, ChunkRow)>, RowError> {
        let (_, after) = keys::of_inode(ino);
        let end = keys::chunk(ino, to);
        let end = if to == u64::MAX { after.as_slice() } else { end.as_slice() };
        self.range(Table::Chunk, &keys::chunk(ino, from), end, limit)?
            .into_iter()
            .map(|(key, value)| Ok((keys::decode_pair(&key)?.1, ChunkRow::decode(&value)?)))
            .collect()
    }

    /// Orphans from `from` on. Local work, never in the base.
    pub fn orphans(&self, from: Ino, limit: usize) -> Result<Vec<(Ino, OrphanRow)>, RowError> {
        base::stored(self.source, Table::Orphan, &keys::inode(from), &[0xff; 9], limit)?
            .into_iter()
            .map(|(key, value)| Ok((keys::decode_inode(&key)?, OrphanRow::decode(&value)?)))
            .collect()
    }

    /// Inodes with a policy of their own, and the losses that each asks to be survived.
    pub(crate) fn survive(&self) -> Result<Vec<(Ino, u8)>, RowError> {
        let corrupt = || RowError::Corrupt { what: "policy" };
        let mut from = META_SURVIVE.to_vec();
        let mut out = Vec::new();
        loop {
            let page = self.range(Table::Meta, &from, META_SURVIVE_END, SCAN_PAGE_ROWS)?;
            let last = page.len() < SCAN_PAGE_ROWS;
            for (key, value) in page {
                let ino = keys::decode_inode(key.get(META_SURVIVE.len()..).unwrap_or_default())?;
                match *value.as_ref() {
                    [ROW_VERSION, losses] => out.push((ino, losses)),
                    [found, ..] if found > ROW_VERSION => {
                        return Err(RowError::Newer { what: "policy", found });
                    }
                    _ => return Err(corrupt()),
                }
                from = key;
                from.push(0);
            }
            if last {
                return Ok(out);
            }
        }
    }

    /// The next inode number that was never reserved.
    pub fn next_ino(&self) -> Result<Ino, RowError> {
        let corrupt = RowError::Corrupt { what: "next inode number" };
        match self.get(Table::Meta, META_NEXT_INO)? {
            None => Ok(ROOT_INO + 1),
            Some(value) => match <[u8; 9]>::try_from(value.as_ref()) {
                Ok([ROW_VERSION, number @ ..]) => Ok(u64::from_le_bytes(number)),
                _ => Err(corrupt),
            },
        }
    }
}
