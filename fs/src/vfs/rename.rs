//! rename: one record, whatever it replaces or leaves behind, so that there is no moment without either name.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use holdfast_content::class::Class;
use holdfast_store::Lsn;

use crate::rows::keys::TAG_SLOTS;
use crate::rows::{EntryRow, Ino, InodeRow, Kind, ROOT_INO, RowTxn, Tag};

use super::create::{NewNode, inherit_group};
use super::dir::Found;
use super::error::FsError;
use super::node::{Locked, Node, Slot, State, lock_many};
use super::policy::Moving;
use super::remove::{Fate, RACE_TRIES};
use super::{Synced, Vfs, blank, check_name, touch_dir};

/// What to do about a name that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameMode {
    Replace,
    NoReplace,
    Exchange,
    /// Leaves a whiteout of this owner (uid, gid) in place of the old name: a character device 0, 0, by which union mounts
    /// know that a name is gone.
    Whiteout {
        owner: (u32, u32),
        replace: bool,
    },
}

/// One side of a rename: a directory and a name in it.
#[derive(Clone, Copy)]
struct Place<'a> {
    dir: &'a Arc<Node>,
    name: &'a [u8],
}

/// What changes with the folder, and the policies that say so: held until the record is written.
struct Moved<'a> {
    policies: Moving<'a>,
    before: Class,
    after: Class,
}

/// What becomes of the name that was moved.
enum OldName {
    Gone { tombstone: bool },
    Whiteout { ino: Ino, row: InodeRow },
}

/// Tells the caller to look again, since a name changed its inode before it was locked.
enum Attempt {
    Done {
        /// What it replaced, without a name now.
        gone: Option<Ino>,
        /// The same, to be taken away.
        orphan: Option<Ino>,
    },
    Again,
}

impl Vfs {
    pub fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) -> Result<(), FsError> {
        self.require_writable()?;
        for name in [from.1, to.1] {
            check_name(name)?;
            if name == b"." || name == b".." {
                return Err(FsError::Invalid);
            }
        }
        let (from_dir, to_dir) = (self.node(from.0)?, self.node(to.0)?);
        if !is_dir(&from_dir) || !is_dir(&to_dir) {
            return Err(FsError::NotDir);
        }
        let (from, to) = (Place { dir: &from_dir, name: from.1 }, Place { dir: &to_dir, name: to.1 });
        for _ in 0..RACE_TRIES {
            let source = self.find(from.dir, from.name)?.ok_or(FsError::NotFound)?;
            let target = self.find(to.dir, to.name)?;
            let nodes = self.node(source).and_then(|s| Ok((s, target.map(|t| self.node(t)).transpose()?)));
            let (source, target) = match nodes {
                Err(FsError::NotFound) => continue,
                other => other?,
            };
            let moves_dir = from.dir.ino != to.dir.ino
                && (is_dir(&source) || (mode == RenameMode::Exchange && target.as_ref().is_some_and(is_dir)));
            // While parents change, parents cannot be walked.
            let moving = moves_dir.then(|| self.renames.lock());
            if moves_dir {
                self.refuse_loop(&source, to.dir)?;
                if mode == RenameMode::Exchange
                    && let Some(target) = &target
                {
                    self.refuse_loop(target, from.dir)?;
                }
            }
            let policies = self.policies_while_moving(moves_dir)?;
            let moved = self.moved(policies, from.dir, to.dir)?;
            let attempt = match (mode, &target) {
                (RenameMode::NoReplace | RenameMode::Whiteout { replace: false, .. }, Some(_)) => {
                    return Err(FsError::Exists);
                }
                (RenameMode::Exchange, None) => return Err(FsError::NotFound),
                (RenameMode::Exchange, Some(target)) => {
                    self.try_exchange(from, to, &source, target, moved)?
                }
                (RenameMode::Whiteout { owner, .. }, _) => {
                    let left = Some((self.new_ino()?, owner));
                    self.try_rename(from, to, &source, target.as_ref(), moved, left)?
                }
                _ => self.try_rename(from, to, &source, target.as_ref(), moved, None)?,
            };
            if let Attempt::Done { gone, orphan } = attempt {
                if let Some(gone) = gone {
                    self.policy_forgotten(gone);
                }
                if let Some(orphan) = orphan {
                    self.let_go(orphan);
                }
                drop(moving);
                return self.settle((), Synced::Names);
            }
        }
        Err(FsError::Damaged(format!("an entry of directory {} leads nowhere", from.dir.ino)))
    }

    fn moved<'a>(
        &self,
        policies: Moving<'a>,
        from: &Arc<Node>,
        to: &Arc<Node>,
    ) -> Result<Moved<'a>, FsError> {
        let (mut before, mut after) = (Class::DRIVE, Class::DRIVE);
        if !policies.is_empty() && from.ino != to.ino {
            (before, after) = (self.class_below(&policies, from.ino)?, self.class_below(&policies, to.ino)?);
        }
        Ok(Moved { policies, before, after })
    }

    /// Refuses to put a directory below itself. The caller holds the rename lock.
    fn refuse_loop(&self, moved: &Arc<Node>, new_parent: &Arc<Node>) -> Result<(), FsError> {
        if !is_dir(moved) {
            return Ok(());
        }
        let mut at = new_parent.clone();
        loop {
            if at.ino == moved.ino {
                return Err(FsError::Invalid);
            }
            if at.ino == ROOT_INO {
                return Ok(());
            }
            let parent = at.parent.load(Ordering::Relaxed);
            if parent == at.ino || parent == 0 {
                return Err(FsError::Damaged(format!("directory {} has no parent", at.ino)));
            }
            at = self.node(parent)?;
        }
    }

    /// The slot of `place` if it still stands for `node` (or, with none, is still free).
    fn still(
        &self,
        locked: &mut Locked<'_>,
        place: Place<'_>,
        node: Option<&Arc<Node>>,
    ) -> Result<Option<Tag>, FsError> {
        let state = locked.get(place.dir.ino)?;
        state.require_live_dir()?;
        Ok(match (self.find_slot(state, place.dir.ino, place.name)?, node) {
            (Found::Here { tag, ino, .. }, Some(node)) if node.ino == ino => Some(tag),
            (Found::Free { tag }, None) => Some(tag),
            _ => None,
        })
    }

    fn try_rename(
        &self,
        from: Place<'_>,
        to: Place<'_>,
        source: &Arc<Node>,
        target: Option<&Arc<Node>>,
        moved: Moved<'_>,
        left: Option<(Ino, (u32, u32))>,
    ) -> Result<Attempt, FsError> {
        let mut nodes = vec![from.dir, to.dir, source];
        nodes.extend(target);
        let mut locked = lock_many(&nodes);
        let Some(from_tag) = self.still(&mut locked, from, Some(source))? else { return Ok(Attempt::Again) };
        let Some(to_tag) = self.still(&mut locked, to, target)? else { return Ok(Attempt::Again) };
        // Two names of one inode: rename does nothing and says so with success.
        if target.is_some_and(|target| target.ino == source.ino) {
            return Ok(Attempt::Done { gone: None, orphan: None });
        }
        let source_is_dir = locked.get(source.ino)?.row.kind == Kind::Dir;
        if let Some(target) = target {
            let row = &locked.get(target.ino)?.row;
            match (source_is_dir, row.kind == Kind::Dir) {
                (true, false) => return Err(FsError::NotDir),
                (false, true) => return Err(FsError::IsDir),
                (true, true) if row.size > 0 => return Err(FsError::NotEmpty),
                _ => {}
            }
        }
        let now = self.now();
        let mut txn = self.rows.begin();
        // The target's end.
        let mut dying: Option<(InodeRow, Fate)> = None;
        if let Some(target) = target {
            let state = locked.get(target.ino)?;
            let mut row = state.row.clone();
            row.ctime = now;
            let fate = self.write_unlink(&moved.policies, &mut txn, target, state, &mut row)?;
            dying = Some((row, fate));
        }
        // The source's own row: ctime, and which directory holds it.
        let mut source_row = locked.get(source.ino)?.row.clone();
        source_row.ctime = now;
        source_row.moved_to(to.dir.ino);
        self.note_moved(&moved.policies, &mut txn, (source.ino, &source_row), (moved.before, moved.after));
        txn.put_inode(source.ino, &source_row);
        let entry =
            EntryRow::Name { ino: source.ino, kind: source_row.kind, name: Bytes::copy_from_slice(to.name) };
        // Both names in one collision chain: the new slot may be the next one, and must stay within reach.
        let one_chain = from.dir.ino == to.dir.ino && from_tag / TAG_SLOTS == to_tag / TAG_SLOTS;
        let old = match left {
            Some(left) => self.write_whiteout(&mut txn, locked.get(from.dir.ino)?, from, from_tag, left)?,
            None if one_chain => {
                txn.put_entry(from.dir.ino, from_tag, &EntryRow::Tombstone);
                OldName::Gone { tombstone: true }
            }
            None => {
                let state = locked.get(from.dir.ino)?;
                let tombstone = self.write_slot_removal(&mut txn, state, from.dir.ino, from_tag)?;
                OldName::Gone { tombstone }
            }
        };
        txn.put_entry(to.dir.ino, to_tag, &entry);
        let parents = self.write_parents(&mut txn, &mut locked, from, to, now, |from_row, to_row| {
            from_row.size = from_row.size.saturating_sub(u64::from(matches!(old, OldName::Gone { .. })));
            to_row.size += u64::from(target.is_none());
            if source_is_dir {
                from_row.nlink = from_row.nlink.saturating_sub(1);
                to_row.nlink += u32::from(target.is_none());
            }
        })?;
        let lsn = txn.commit()?;
        drop(moved);
        self.apply_old_name(locked.get(from.dir.ino)?, from, from_tag, old, lsn);
        let slot = Slot::new(source.ino, source_row.kind, to.name);
        self.apply_slot(locked.get(to.dir.ino)?, to_tag, slot, target.is_some());
        apply_rows(&mut locked, parents, lsn)?;
        apply_rows(&mut locked, vec![(source.ino, source_row)], lsn)?;
        if source_is_dir {
            source.parent.store(to.dir.ino, Ordering::Relaxed);
        }
        let (mut gone, mut orphan) = (None, None);
        if let (Some(target), Some((mut row, fate))) = (target, dying) {
            row.lsn = lsn;
            self.apply_unlink(locked.get(target.ino)?, row, &fate);
            let unused = target.opens.load(Ordering::Relaxed) == 0;
            gone = (!matches!(fate, Fate::Lives)).then_some(target.ino);
            orphan = (matches!(fate, Fate::Orphan) && unused).then_some(target.ino);
        }
        Ok(Attempt::Done { gone, orphan })
    }

    /// Puts a whiteout where the moved name was: made as any inode is made there, with no permissions.
    fn write_whiteout(
        &self,
        txn: &mut RowTxn<'_>,
        dir: &State,
        from: Place<'_>,
        tag: Tag,
        (ino, (uid, gid)): (Ino, (u32, u32)),
    ) -> Result<OldName, FsError> {
        self.require_space(0)?;
        let kind = Kind::CharDevice;
        let (gid, _) = inherit_group(dir, gid, kind);
        let mut row = blank(kind, 0, uid, gid, self.now(), &self.options);
        let new = NewNode { kind, perm: 0, umask: 0, rdev: 0, target: b"" };
        self.inherit_acl(txn, from.dir.ino, dir, ino, &new, &mut row)?;
        txn.put_inode(ino, &row);
        let name = Bytes::copy_from_slice(from.name);
        txn.put_entry(from.dir.ino, tag, &EntryRow::Name { ino, kind, name });
        Ok(OldName::Whiteout { ino, row })
    }

    /// The old name in memory, once the record is committed.
    fn apply_old_name(&self, dir: &mut State, from: Place<'_>, tag: Tag, old: OldName, lsn: Lsn) {
        match old {
            OldName::Gone { tombstone } => self.apply_slot_removal(dir, tag, tombstone),
            OldName::Whiteout { ino, row } => {
                // As for any new inode: into the cache before its name can be found.
                self.nodes.insert(ino, State::new(InodeRow { lsn, ..row }));
                self.apply_slot(dir, tag, Slot::new(ino, Kind::CharDevice, from.name), true);
            }
        }
    }

    fn try_exchange(
        &self,
        from: Place<'_>,
        to: Place<'_>,
        source: &Arc<Node>,
        target: &Arc<Node>,
        moved: Moved<'_>,
    ) -> Result<Attempt, FsError> {
        let mut locked = lock_many(&[from.dir, to.dir, source, target]);
        let Some(from_tag) = self.still(&mut locked, from, Some(source))? else { return Ok(Attempt::Again) };
        let Some(to_tag) = self.still(&mut locked, to, Some(target))? else { return Ok(Attempt::Again) };
        if source.ino == target.ino {
            return Ok(Attempt::Done { gone: None, orphan: None });
        }
        let now = self.now();
        let mut txn = self.rows.begin();
        let mut rows = Vec::new();
        let (before, after) = (moved.before, moved.after);
        for (node, at, tag, name, classes) in [
            (source, to.dir, to_tag, to.name, (before, after)),
            (target, from.dir, from_tag, from.name, (after, before)),
        ] {
            let mut row = locked.get(node.ino)?.row.clone();
            row.ctime = now;
            row.moved_to(at.ino);
            self.note_moved(&moved.policies, &mut txn, (node.ino, &row), classes);
            txn.put_inode(node.ino, &row);
            let name = Bytes::copy_from_slice(name);
            txn.put_entry(at.ino, tag, &EntryRow::Name { ino: node.ino, kind: row.kind, name });
            rows.push((node.ino, row));
        }
        let (source_kind, target_kind) = (locked.get(source.ino)?.row.kind, locked.get(target.ino)?.row.kind);
        let parents =
            self.write_parents(&mut txn, &mut locked, from, to, now, |from_row, to_row| {
                match (source_kind == Kind::Dir, target_kind == Kind::Dir) {
                    (true, false) => {
                        from_row.nlink = from_row.nlink.saturating_sub(1);
                        to_row.nlink += 1;
                    }
                    (false, true) => {
                        from_row.nlink += 1;
                        to_row.nlink = to_row.nlink.saturating_sub(1);
                    }
                    _ => {}
                }
            })?;
        let lsn = txn.commit()?;
        let (there, back) =
            (Slot::new(source.ino, source_kind, to.name), Slot::new(target.ino, target_kind, from.name));
        self.apply_slot(locked.get(to.dir.ino)?, to_tag, there, true);
        self.apply_slot(locked.get(from.dir.ino)?, from_tag, back, true);
        for (node, at, kind) in [(source, to.dir, source_kind), (target, from.dir, target_kind)] {
            if kind == Kind::Dir {
                node.parent.store(at.ino, Ordering::Relaxed);
            }
        }
        apply_rows(&mut locked, parents, lsn)?;
        apply_rows(&mut locked, rows, lsn)?;
        drop(moved);
        Ok(Attempt::Done { gone: None, orphan: None })
    }

    /// Writes both parents' rows (which may be one) after `change`.
    fn write_parents(
        &self,
        txn: &mut RowTxn<'_>,
        locked: &mut Locked<'_>,
        from: Place<'_>,
        to: Place<'_>,
        now: crate::rows::Time,
        change: impl FnOnce(&mut InodeRow, &mut InodeRow),
    ) -> Result<Vec<(Ino, InodeRow)>, FsError> {
        let mut from_row = touch_dir(locked.get(from.dir.ino)?, now);
        let mut to_row = touch_dir(locked.get(to.dir.ino)?, now);
        if from.dir.ino == to.dir.ino {
            // Both changes fall on one row: take the sum of their differences.
            let before = from_row.clone();
            change(&mut from_row, &mut to_row);
            from_row.size = from_row.size.wrapping_add(to_row.size.wrapping_sub(before.size));
            from_row.nlink = from_row.nlink.wrapping_add(to_row.nlink.wrapping_sub(before.nlink));
            txn.put_inode(from.dir.ino, &from_row);
            return Ok(vec![(from.dir.ino, from_row)]);
        }
        change(&mut from_row, &mut to_row);
        txn.put_inode(from.dir.ino, &from_row);
        txn.put_inode(to.dir.ino, &to_row);
        Ok(vec![(from.dir.ino, from_row), (to.dir.ino, to_row)])
    }
}

fn is_dir(node: &Arc<Node>) -> bool {
    node.read().row.kind == Kind::Dir
}

fn apply_rows(locked: &mut Locked<'_>, rows: Vec<(Ino, InodeRow)>, lsn: Lsn) -> Result<(), FsError> {
    for (ino, mut row) in rows {
        row.lsn = lsn;
        let state = locked.get(ino)?;
        state.row = row;
        state.atime_dirty = false;
    }
    Ok(())
}
