//! One change of the namespace: after-images, payload references, tombstones, `changed` marks.

use std::collections::BTreeSet;

use bytes::Bytes;
use holdfast_store::{Lsn, Payload, Table, Txn};

use super::inode::{Ino, InodeRow};
use super::keys::{self, Tag};
use super::values::{ChunkRow, EntryRow, ExtentRow, ExtentSource, OrphanRow, XattrRow};
use super::{META_NEXT_INO, META_SURVIVE, ROW_VERSION, RowError, Rows, TOMBSTONE, marks};

/// Collects the after-images of one atomic change; nothing happens before [`RowTxn::commit`].
///
/// The caller holds the locks of every inode whose rows it puts.
pub struct RowTxn<'a> {
    rows: &'a Rows,
    txn: Txn,
    changed: BTreeSet<Vec<u8>>,
}

impl<'a> RowTxn<'a> {
    pub(super) fn new(rows: &'a Rows) -> Self {
        Self { rows, txn: Txn::new(), changed: BTreeSet::new() }
    }

    /// The store's own transaction, for rows that are not the namespace's (blocks, pieces, commits).
    pub fn raw(&mut self) -> &mut Txn {
        &mut self.txn
    }

    fn mark(&mut self, table: Table, key: &[u8]) {
        self.changed.insert(keys::full(table, key));
    }

    fn put(&mut self, table: Table, key: &[u8], value: impl Into<Bytes>) {
        self.mark(table, key);
        self.txn.put(table, key, value);
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        self.mark(table, key);
        if self.rows.has_base() {
            self.txn.put(table, key, Bytes::from_static(&TOMBSTONE));
        } else {
            self.txn.delete(table, key);
        }
    }

    /// Puts an inode; the row's `lsn` becomes this record's.
    pub fn put_inode(&mut self, ino: Ino, row: &InodeRow) {
        let key = keys::inode(ino);
        self.mark(Table::Inode, &key);
        let row = row.clone();
        self.txn.put_with_lsn(Table::Inode, key, move |lsn| row.encode(lsn));
    }

    /// Puts an inode with the `lsn` that it has, without marking it changed (times that were only read, seals).
    pub fn put_inode_unchanged(&mut self, ino: Ino, row: &InodeRow) {
        self.txn.put(Table::Inode, keys::inode(ino), row.encode(row.lsn));
    }

    /// Deletes an inode. A commit takes its xattrs and chunks out of the tree by this mark alone.
    pub fn delete_inode(&mut self, ino: Ino) {
        self.delete(Table::Inode, &keys::inode(ino));
    }

    pub fn put_entry(&mut self, parent: Ino, tag: Tag, row: &EntryRow) {
        self.put(Table::Entry, &keys::entry(parent, tag), row.encode());
    }

    pub fn delete_entry(&mut self, parent: Ino, tag: Tag) {
        self.delete(Table::Entry, &keys::entry(parent, tag));
    }

    pub fn put_xattr(&mut self, ino: Ino, row: &XattrRow) {
        let key = keys::xattr(ino, self.rows.names().xattr_tag(&row.name));
        self.put(Table::Xattr, &key, row.encode());
    }

    pub fn delete_xattr(&mut self, ino: Ino, name: &[u8]) {
        let key = keys::xattr(ino, self.rows.names().xattr_tag(name));
        self.delete(Table::Xattr, &key);
    }

    /// Puts a piece of an extent that exists already, under its old LSN.
    pub fn put_extent(&mut self, ino: Ino, off: u64, row: &ExtentRow) {
        self.txn.put(Table::Extent, keys::extent(ino, off), row.encode());
    }

    /// Puts an extent of this record's own payload, from its byte `skip` on.
    pub fn put_new_extent(&mut self, ino: Ino, off: u64, len: u64, skip: u64) {
        self.txn.put_with_lsn(Table::Extent, keys::extent(ino, off), move |lsn| {
            ExtentRow { len, lsn, source: ExtentSource::Payload { payload: lsn, skip } }.encode()
        });
    }

    /// Puts an extent that this record makes from an older payload, or of zeros.
    pub fn put_shared_extent(&mut self, ino: Ino, off: u64, len: u64, source: ExtentSource) {
        self.txn.put_with_lsn(Table::Extent, keys::extent(ino, off), move |lsn| {
            ExtentRow { len, lsn, source }.encode()
        });
    }

    pub fn delete_extent(&mut self, ino: Ino, off: u64) {
        self.txn.delete(Table::Extent, keys::extent(ino, off));
    }

    pub fn put_chunk(&mut self, ino: Ino, n: u64, row: &ChunkRow) {
        self.put(Table::Chunk, &keys::chunk(ino, n), row.encode());
    }

    /// Puts a chunk shared from another file; its cut becomes this record's LSN, so that no older cut replaces it.
    pub fn put_shared_chunk(&mut self, ino: Ino, n: u64, row: &ChunkRow) {
        let key = keys::chunk(ino, n);
        self.mark(Table::Chunk, &key);
        let row = row.clone();
        self.txn.put_with_lsn(Table::Chunk, key, move |lsn| ChunkRow { cut: lsn, ..row }.encode());
    }

    pub fn delete_chunk(&mut self, ino: Ino, n: u64) {
        self.delete(Table::Chunk, &keys::chunk(ino, n));
    }

    /// Puts a chunk that a seal made. The mark is one of those that the cut closed, so that the commit of that cut takes it
    /// away, and a seal after one that was interrupted finds it again.
    pub fn put_chunk_sealed(&mut self, ino: Ino, n: u64, row: &ChunkRow) {
        let key = keys::chunk(ino, n);
        mark_sealed(&mut self.txn, row.cut, Table::Chunk, &key);
        self.txn.put(Table::Chunk, key, row.encode());
    }

    /// Takes a chunk away that as of `cut` is a hole; marked like [`RowTxn::put_chunk_sealed`].
    pub fn delete_chunk_sealed(&mut self, ino: Ino, n: u64, cut: Lsn) {
        let key = keys::chunk(ino, n);
        self.delete(Table::Chunk, &key);
        self.changed.remove(&keys::full(Table::Chunk, &key));
        mark_sealed(&mut self.txn, cut, Table::Chunk, &key);
    }

    /// Drops a row of an inode that is deleted in the same record or was in an earlier one: no tombstone, no mark.
    pub fn forget(&mut self, table: Table, key: &[u8]) {
        self.txn.delete(table, key);
    }

    pub fn put_orphan(&mut self, ino: Ino, row: OrphanRow) {
        self.txn.put(Table::Orphan, keys::inode(ino), row.encode());
    }

    pub fn delete_orphan(&mut self, ino: Ino) {
        self.txn.delete(Table::Orphan, keys::inode(ino));
    }

    pub fn put_next_ino(&mut self, next: Ino) {
        let mut value = vec![ROW_VERSION];
        value.extend_from_slice(&next.to_le_bytes());
        self.put(Table::Meta, META_NEXT_INO, value);
    }

    /// The inode has a policy of its own, or (`None`) none any more.
    pub(crate) fn put_survive(&mut self, ino: Ino, losses: Option<u8>) {
        let key = [META_SURVIVE, &keys::inode(ino)].concat();
        match losses {
            Some(losses) => self.put(Table::Meta, &key, vec![ROW_VERSION, losses]),
            None => self.delete(Table::Meta, &key),
        }
    }

    /// The payload of this record.
    pub fn payload(&mut self, payload: Payload) {
        self.txn.payload(payload);
    }

    /// One more extent refers to `payload`.
    pub fn retain(&mut self, payload: Lsn) {
        self.txn.retain(payload);
    }

    /// One extent less refers to `payload`.
    pub fn release(&mut self, payload: Lsn) {
        self.txn.release(payload);
    }

    /// Writes the record; when it returns, readers see the change.
    pub fn commit(mut self) -> Result<Lsn, RowError> {
        let marks = !self.changed.is_empty();
        for key in self.changed {
            self.txn.put_after_cut(Table::Changed, key, &marks::MARK[..]);
        }
        let lsn = self.rows.store().commit(self.txn)?;
        if marks {
            self.rows.note_marked(lsn);
        }
        Ok(lsn)
    }
}

/// Marks a row that a seal made from `cut`: for the commit of that cut, and for no later one.
pub(crate) fn mark_sealed(txn: &mut Txn, cut: Lsn, table: Table, key: &[u8]) {
    let mark = marks::key(marks::under_seal(cut), &keys::full(table, key));
    txn.put(Table::Changed, mark, &marks::MARK[..]);
}

/// Marks a row as changed after the newest cut; the caller tells [`Rows::note_marked`] of the record.
pub(crate) fn mark_again(txn: &mut Txn, table: Table, key: &[u8]) {
    txn.put_after_cut(Table::Changed, keys::full(table, key), &marks::MARK[..]);
}
