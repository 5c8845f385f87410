//! Names that go, and inodes that go with their last name.
//!
//! An inode whose last name goes while it is open, or which has too many rows for one record, first becomes an
//! orphan: `nlink` 0 and an orphan row, in the record that removes the name. Its rows follow in bounded records;
//! a crash between two of them is made good at the next start.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use holdfast_store::Table;

use crate::policy::Policies;
use crate::rows::base::stored;
use crate::rows::{Ino, InodeRow, Kind, OrphanRow, RowTxn, SCAN_PAGE_ROWS, keys};

use super::error::FsError;
use super::node::{DirMap, Node, State, lock_many};
use super::{Synced, Vfs, check_name, touch_dir};

/// Rows that one record removes at most, so that neither the record nor the wait for it grows with a file.
pub(super) const REMOVE_ROWS_MAX: usize = 2048;
/// The same for who waits for room: tens of milliseconds.
pub(super) const ROOM_ROWS: usize = 16 * REMOVE_ROWS_MAX;
/// What an orphan costs at least, in rows: a record of its own.
const ORPHAN_ROWS: usize = 16;
/// Tries before giving up on a name that changes its inode faster than it can be locked.
pub(super) const RACE_TRIES: usize = 1024;

/// What becomes of an inode in the record that takes its last name.
pub(super) enum Fate {
    /// All its rows go with the name.
    Dies,
    /// It is an orphan until [`Vfs::reclaim`].
    Orphan,
    /// It has other names.
    Lives,
}

impl Vfs {
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        self.remove(parent, name, false)
    }

    pub fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        match name {
            b"." => Err(FsError::Invalid),
            b".." => Err(FsError::NotEmpty),
            _ => self.remove(parent, name, true),
        }
    }

    fn remove(&self, parent: Ino, name: &[u8], want_dir: bool) -> Result<(), FsError> {
        self.require_writable()?;
        check_name(name)?;
        let dir = self.node(parent)?;
        for _ in 0..RACE_TRIES {
            let ino = self.find(&dir, name)?.ok_or(FsError::NotFound)?;
            let node = match self.node(ino) {
                Err(FsError::NotFound) => continue,
                other => other?,
            };
            if let Some(fate) = self.try_remove(&dir, &node, name, want_dir)? {
                let unused = node.opens.load(Ordering::Relaxed) == 0;
                drop(node);
                if !matches!(fate, Fate::Lives) {
                    self.policy_forgotten(ino);
                }
                if let Fate::Orphan = fate
                    && unused
                {
                    self.let_go(ino);
                }
                return self.settle((), Synced::Names);
            }
        }
        Err(FsError::Damaged(format!("an entry of directory {parent} leads nowhere")))
    }

    /// Removes the name if it still stands for `node`; `None` if it does not.
    fn try_remove(
        &self,
        dir: &Arc<Node>,
        node: &Arc<Node>,
        name: &[u8],
        want_dir: bool,
    ) -> Result<Option<Fate>, FsError> {
        let (parent, ino) = (dir.ino, node.ino);
        let policies = self.policies()?;
        let mut locked = lock_many(&[dir, node]);
        let tag = match self.find_slot(locked.get(parent)?, parent, name)?.here() {
            Some((tag, found, _)) if found == ino => tag,
            _ => return Ok(None),
        };
        let now = self.now();
        let state = locked.get(ino)?;
        match (state.row.kind == Kind::Dir, want_dir) {
            (true, false) => return Err(FsError::IsDir),
            (false, true) => return Err(FsError::NotDir),
            (true, true) if state.row.size > 0 => return Err(FsError::NotEmpty),
            _ => {}
        }
        let mut txn = self.rows.begin();
        let mut row = state.row.clone();
        row.ctime = now;
        let fate = self.write_unlink(&policies, &mut txn, node, state, &mut row)?;
        let state = locked.get(parent)?;
        let tombstone = self.write_slot_removal(&mut txn, state, parent, tag)?;
        let mut dir_row = touch_dir(state, now);
        dir_row.size = dir_row.size.saturating_sub(1);
        if want_dir {
            dir_row.nlink = dir_row.nlink.saturating_sub(1);
        }
        txn.put_inode(parent, &dir_row);
        let lsn = txn.commit()?;
        drop(policies);
        dir_row.lsn = lsn;
        state.row = dir_row;
        state.atime_dirty = false;
        self.apply_slot_removal(state, tag, tombstone);
        row.lsn = lsn;
        self.apply_unlink(locked.get(ino)?, row, &fate);
        Ok(Some(fate))
    }

    /// Writes what becomes of an inode that loses one name (of a directory: its only one). `row` is its row to be.
    pub(super) fn write_unlink(
        &self,
        policies: &Policies,
        txn: &mut RowTxn<'_>,
        node: &Arc<Node>,
        state: &mut State,
        row: &mut InodeRow,
    ) -> Result<Fate, FsError> {
        row.nlink = if row.kind == Kind::Dir { 0 } else { row.nlink.saturating_sub(1) };
        if row.nlink > 0 {
            // Which folder has the name that is left is not known.
            row.parent = 0;
            txn.put_inode(node.ino, row);
            return Ok(Fate::Lives);
        }
        self.forget_policy(policies, txn, node.ino);
        // Whoever takes the name away knows the inode by it.
        node.forgotten.store(false, Ordering::SeqCst);
        // A file that is only just being opened holds its lock, or sees `nlink` 0 and stays an orphan's guest.
        let unused = node.opens.load(Ordering::Relaxed) == 0 && !self.is_careful();
        if unused && self.write_death(txn, node.ino, state)? {
            return Ok(Fate::Dies);
        }
        txn.put_inode(node.ino, row);
        txn.put_orphan(node.ino, OrphanRow::Unlinked);
        Ok(Fate::Orphan)
    }

    /// The same in memory, once the record is committed.
    pub(super) fn apply_unlink(&self, state: &mut State, row: InodeRow, fate: &Fate) {
        state.row = row;
        state.atime_dirty = false;
        if let Fate::Dies = fate {
            bury(state);
            self.nodes.recount(state);
        }
    }

    /// Writes the removal of all rows of an inode, if they are few enough for one record.
    fn write_death(&self, txn: &mut RowTxn<'_>, ino: Ino, state: &mut State) -> Result<bool, FsError> {
        if state.row.kind == Kind::File && state.extents.is_none() {
            // A folder's lock may be held: no more than tells that they are too many.
            let some = self.rows.live().extents(ino, 0, REMOVE_ROWS_MAX + 1)?;
            if some.len() > REMOVE_ROWS_MAX {
                return Ok(false);
            }
            state.extents = Some(some.into_iter().collect());
            self.nodes.recount(state);
        }
        let extents = state.extents.as_ref().map_or(0, |map| map.len());
        if extents > REMOVE_ROWS_MAX {
            return Ok(false);
        }
        let chunks = if state.row.has_chunks() { self.local_rows(Table::Chunk, ino)? } else { Vec::new() };
        let xattrs = if state.row.has_xattrs() { self.local_rows(Table::Xattr, ino)? } else { Vec::new() };
        if extents + chunks.len() + xattrs.len() > REMOVE_ROWS_MAX {
            return Ok(false);
        }
        for (off, extent) in state.extents.iter().flatten() {
            txn.delete_extent(ino, *off);
            if let Some(payload) = extent.payload() {
                txn.release(payload);
            }
        }
        chunks.iter().for_each(|key| txn.forget(Table::Chunk, key));
        xattrs.iter().for_each(|key| txn.forget(Table::Xattr, key));
        if state.trimming.is_some() {
            txn.delete_orphan(ino);
        }
        txn.delete_inode(ino);
        Ok(true)
    }

    /// Keys of rows that stand in the store itself (those of a base go with the inode's mark).
    fn local_rows(&self, table: Table, ino: Ino) -> Result<Vec<Vec<u8>>, FsError> {
        let (start, end) = keys::of_inode(ino);
        let rows = stored(self.rows.store(), table, &start, &end, REMOVE_ROWS_MAX + 1)?;
        Ok(rows.into_iter().map(|(key, _)| key).collect())
    }

    /// One bounded step towards taking the rows of an orphan that nobody has open. Of a file with a name: the end of a truncation.
    fn reclaim_step(&self, ino: Ino) -> Result<Step, FsError> {
        let node = self.node(ino)?;
        let mut state = node.write();
        if state.row.nlink > 0 {
            self.finish_trim(ino, &mut state)?;
        }
        if state.dead || state.row.nlink > 0 || node.opens.load(Ordering::Relaxed) > 0 {
            return Ok(Step { rows: 0, more: false });
        }
        let mut txn = self.rows.begin();
        if self.write_death(&mut txn, ino, &mut state)? {
            let rows = state.extents.as_ref().map_or(0, |map| map.len());
            txn.delete_orphan(ino);
            txn.commit()?;
            bury(&mut state);
            self.nodes.recount(&mut state);
            return Ok(Step { rows, more: false });
        }
        let mut txn = self.rows.begin();
        let gone: Vec<_> = match &state.extents {
            Some(map) => map.iter().take(REMOVE_ROWS_MAX).map(|(off, extent)| (*off, *extent)).collect(),
            None => self.rows.live().extents(ino, 0, REMOVE_ROWS_MAX)?,
        };
        for (off, extent) in &gone {
            txn.delete_extent(ino, *off);
            if let Some(payload) = extent.payload() {
                txn.release(payload)
            }
        }
        if gone.is_empty() {
            for table in [Table::Chunk, Table::Xattr] {
                let keys = self.local_rows(table, ino)?;
                keys.iter().take(REMOVE_ROWS_MAX).for_each(|key| txn.forget(table, key));
            }
        }
        txn.commit()?;
        if let Some(map) = &mut state.extents {
            gone.iter().for_each(|(off, _)| {
                map.remove(off);
            });
        }
        self.nodes.recount(&mut state);
        Ok(Step { rows: REMOVE_ROWS_MAX, more: true })
    }

    fn is_careful(&self) -> bool {
        self.careful_rounds.load(Ordering::SeqCst) > 0
    }

    /// An orphan that nobody has open: begins to take its rows away, or lets it linger. Its name is gone, so this does not fail.
    pub(super) fn let_go(&self, ino: Ino) {
        if self.is_careful() {
            self.lingering.lock().0.push(ino);
            return;
        }
        self.reclaimable.lock().push_back(ino);
        if let Err(error) = self.reclaim(1) {
            tracing::warn!(%error, "rows of a file without a name go later");
        }
    }

    /// For what could not be done now: the next round of housekeeping looks at it.
    pub(super) fn reclaim_later(&self, ino: Ino) {
        // The other end is where it is taken from: who fails again holds up nobody.
        self.reclaimable.lock().push_front(ino);
    }

    /// Housekeeping is done by the calling thread, which parks between its rounds.
    pub fn set_keeper(&self) {
        *self.keeper.lock() = Some(std::thread::current());
    }

    /// Whether files without a name still hold room; if so, whoever keeps house is woken to take them away.
    pub fn hasten_reclaim(&self) -> bool {
        let waits = !self.reclaimable.lock().is_empty();
        if waits && let Some(keeper) = self.keeper.lock().as_ref() {
            self.hastened.store(true, Ordering::Release);
            keeper.unpark();
        }
        waits
    }

    /// Whether housekeeping was woken for that since the last time.
    pub fn was_hastened(&self) -> bool {
        self.hastened.swap(false, Ordering::AcqRel)
    }

    /// A round of housekeeping begins: what lingered for a whole one may be reclaimed.
    pub fn begin_round(&self) {
        let less = |rounds: u32| Some(rounds.saturating_sub(1));
        let _ = self.careful_rounds.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        let mut lingering = self.lingering.lock();
        let (this, last) = &mut *lingering;
        self.reclaimable.lock().extend(last.drain(..));
        std::mem::swap(this, last);
    }

    /// Takes away rows of orphans that nobody uses, about `rows_max` of them and at least one step; true if more wait.
    /// Whoever owns the file system calls it now and then; a caller who unlinks helps with one step.
    pub fn reclaim(&self, rows_max: usize) -> Result<bool, FsError> {
        if self.rows.store().read_only().is_some() {
            return Ok(false);
        }
        let mut done = 0;
        while done < rows_max {
            let Some(ino) = self.reclaimable.lock().pop_back() else { return Ok(false) };
            done += self.take_away(ino)?;
        }
        Ok(!self.reclaimable.lock().is_empty())
    }

    /// A step of what [`Vfs::reclaim`] does for one orphan, taken from those that wait; what it cost, in rows.
    fn take_away(&self, ino: Ino) -> Result<usize, FsError> {
        let step = match self.reclaim_step(ino) {
            Err(FsError::NotFound) => return Ok(0),
            other => other.inspect_err(|_| self.reclaim_later(ino))?,
        };
        self.nodes.buried(ino);
        if step.more {
            self.reclaimable.lock().push_back(ino);
        }
        Ok(step.rows.max(ORPHAN_ROWS))
    }

    /// A write found the disk full: takes away what files without a name still hold, some of it, and has the store free what is dead. Whether it was
    /// anything. Called with no lock held. What may have to wait for the network is left to housekeeping.
    pub(super) fn make_room(&self) -> bool {
        let mut done = 0;
        while done < ROOM_ROWS {
            let next = {
                let mut waiting = self.reclaimable.lock();
                let last = waiting.iter().rposition(|ino| !self.may_block(*ino, None));
                last.and_then(|at| waiting.remove(at))
            };
            let Some(ino) = next else { break };
            match self.take_away(ino) {
                Ok(rows) => done += rows,
                Err(error) => {
                    tracing::debug!(ino, %error, "what was deleted makes no room");
                    break;
                }
            }
        }
        self.rows.store().make_room() || done > 0
    }

    /// At start: ends interrupted truncations, and queues what has no name.
    pub(super) fn recover_orphans(&self) -> Result<(), FsError> {
        if self.rows.store().read_only().is_some() {
            // A damaged log. Files have their new sizes from the record of the mark on, so all looks as it should.
            return Ok(());
        }
        let mut from = 0;
        loop {
            let page = self.rows.live().orphans(from, SCAN_PAGE_ROWS)?;
            let full = page.len() == SCAN_PAGE_ROWS;
            for (ino, orphan) in page {
                from = ino + 1;
                let node = match self.node(ino) {
                    Err(FsError::NotFound) => {
                        // The inode went in a later record than its mark: the mark means nothing any more.
                        let mut txn = self.rows.begin();
                        txn.delete_orphan(ino);
                        txn.commit()?;
                        continue;
                    }
                    other => other?,
                };
                match orphan {
                    OrphanRow::Unlinked => self.reclaimable.lock().push_back(ino),
                    OrphanRow::Trim { from } => self.recover_trim(&node, from)?,
                }
            }
            if !full {
                return Ok(());
            }
        }
    }

    /// Ends a truncation that a crash interrupted.
    fn recover_trim(&self, node: &Arc<Node>, from: u64) -> Result<(), FsError> {
        let mut state = node.write();
        if state.row.size > from {
            // No file grows under its mark: this one outlived its truncation, as earlier versions let it.
            let mut txn = self.rows.begin();
            txn.delete_orphan(node.ino);
            txn.commit()?;
            return Ok(());
        }
        state.trimming = Some(from);
        self.finish_trim_or_later(node.ino, &mut state);
        Ok(())
    }
}

/// What a step took away, and whether the orphan has more.
struct Step {
    rows: usize,
    more: bool,
}

/// Nothing is at rest any more: what is left in memory is empty.
fn bury(state: &mut State) {
    state.dead = true;
    state.trimming = None;
    state.row.nlink = 0;
    state.extents = Some(super::extents::ExtentMap::new());
    state.dir = (state.row.kind == Kind::Dir).then(DirMap::new);
    state.names = None;
    state.chunks.get_mut().clear();
}
