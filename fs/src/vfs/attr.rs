//! Attributes: reading them, changing them, and the rules that tie them together.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::rows::{Ino, InodeRow, Kind, Time, inode_flags};

use super::error::FsError;
use super::node::{Node, State};
use super::{Caller, Synced, Vfs};

/// What `stat` shows of an inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attr {
    pub ino: Ino,
    pub kind: Kind,
    pub perm: u16,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub size: u64,
    /// Units of 512 bytes.
    pub blocks: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub btime: Time,
    pub generation: u32,
}

/// `st_blksize` and the unit in which space is shown to be used.
pub const BLOCK_BYTES: u64 = 4096;
/// Bytes that a directory shows for each entry; only a hint of its size to a person.
const DIR_ENTRY_BYTES: u64 = 32;
/// atime is noted at most once in this time, unless the file changed since (relatime).
const RELATIME_SECS: i64 = 24 * 60 * 60;
/// Noted atimes are written together, at the latest when there are so many.
const ATIMES_MAX: usize = 4096;

impl Attr {
    pub(super) fn of(ino: Ino, row: &InodeRow) -> Self {
        let (size, used) = match row.kind {
            Kind::Dir => {
                let bytes = row.size.saturating_mul(DIR_ENTRY_BYTES).max(1).next_multiple_of(BLOCK_BYTES);
                (bytes, bytes)
            }
            _ => (row.size, row.allocated.next_multiple_of(BLOCK_BYTES)),
        };
        Self {
            ino,
            kind: row.kind,
            perm: row.perm,
            nlink: row.nlink,
            uid: row.uid,
            gid: row.gid,
            rdev: row.rdev,
            size,
            blocks: used / 512,
            atime: row.atime,
            mtime: row.mtime,
            ctime: row.ctime,
            btime: row.btime,
            generation: row.generation,
        }
    }
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeSet {
    Now,
    To(Time),
}

/// Changes of attributes; `None` leaves one as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttr {
    pub perm: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<TimeSet>,
    pub mtime: Option<TimeSet>,
    /// Only the kernel's writeback cache sets it; otherwise any change sets it to now.
    pub ctime: Option<Time>,
}

impl SetAttr {
    /// A chown that changes neither owner nor group arrives as this, and nothing else does: times come with mtime or atime.
    fn is_bare(&self) -> bool {
        let Self { perm, uid, gid, size, atime, mtime, ctime: _ } = self;
        perm.is_none()
            && uid.is_none()
            && gid.is_none()
            && size.is_none()
            && atime.is_none()
            && mtime.is_none()
    }
}

/// Permission bits after a change that may not keep privileges: setuid goes, and so does setgid, but for one without group execution
/// where who made the change might set it anew: a member of the group.
pub(super) fn without_privileges(perm: u16, member: bool) -> u16 {
    let keeps = member && perm & 0o0010 == 0;
    perm & if keeps { !0o4000 } else { !0o6000 }
}

impl Vfs {
    pub fn getattr(&self, ino: Ino) -> Result<Attr, FsError> {
        let node = self.node(ino)?;
        let state = node.read();
        Ok(Attr::of(ino, &state.row))
    }

    /// Changes attributes, all in one record.
    pub fn setattr(&self, caller: &Caller, ino: Ino, set: &SetAttr) -> Result<Attr, FsError> {
        let changed = self.change_attributes(caller, ino, set)?;
        self.settle(changed, Synced::All)
    }

    fn change_attributes(&self, caller: &Caller, ino: Ino, set: &SetAttr) -> Result<Attr, FsError> {
        self.require_writable()?;
        let node = self.node(ino)?;
        let mut state = node.write();
        if state.row.kind != Kind::File && set.size.is_some() {
            return Err(if state.row.kind == Kind::Dir { FsError::IsDir } else { FsError::Invalid });
        }
        let now = self.now();
        let mut row = state.row.clone();
        let mut perm = row.perm;
        if set.size.is_some() && !caller.privileged {
            perm = without_privileges(perm, caller.gid == row.gid);
        }
        if set.uid.is_some() || set.gid.is_some() || set.is_bare() {
            // chown clears them even for root, and never on directories.
            if row.kind != Kind::Dir {
                perm = without_privileges(perm, caller.privileged || caller.gid == row.gid);
            }
            row.uid = set.uid.unwrap_or(row.uid);
            row.gid = set.gid.unwrap_or(row.gid);
        }
        row.perm = set.perm.map_or(perm, |perm| perm & 0o7777);
        if set.size == Some(0) {
            // What it held does not matter any more.
            row.flags &= !inode_flags::LACKS_DATA;
        }
        let at = |set: TimeSet| match set {
            TimeSet::Now => now,
            TimeSet::To(time) => time,
        };
        if set.size.is_some_and(|size| size != row.size) {
            row.mtime = now;
        }
        row.atime = set.atime.map_or(row.atime, at);
        row.mtime = set.mtime.map_or(row.mtime, at);
        row.ctime = set.ctime.unwrap_or(now);
        if state.dead {
            // Nothing is at rest any more; whoever still holds it sees what it did.
            row.size = set.size.unwrap_or(row.size);
            state.row = row;
            return Ok(Attr::of(ino, &state.row));
        }
        let acl = self.acl_after_chmod(ino, &state, set.perm)?;
        // After each rename, link and write the kernel sends times that are those of its tick, and so ours already.
        if row == state.row && acl.is_none() && set.size.is_none_or(|size| size == row.size) {
            return Ok(Attr::of(ino, &state.row));
        }
        match set.size {
            Some(size) if size != state.row.size => self.resize(ino, &mut state, size, row)?,
            _ => {
                let mut txn = self.rows.begin();
                if let Some(acl) = acl {
                    txn.put_xattr(ino, &acl);
                }
                txn.put_inode(ino, &row);
                row.lsn = txn.commit()?;
                state.row = row;
                state.atime_dirty = false;
            }
        }
        Ok(Attr::of(ino, &state.row))
    }

    /// Notes that an inode was read, as relatime does: when it changed since it was last read, or once a day.
    ///
    /// In memory; written with the next change of the inode, with many others, or when the drive is closed.
    pub(super) fn note_read(&self, node: &Arc<Node>) {
        if self.options.no_atime || self.read_only.load(Ordering::Relaxed) {
            return;
        }
        let now = self.now();
        let due = |row: &InodeRow| {
            row.atime <= row.mtime
                || row.atime <= row.ctime
                || now.secs.saturating_sub(row.atime.secs) >= RELATIME_SECS
        };
        {
            let state = node.read();
            // The clock ticks coarsely: an atime of this very tick needs no second note.
            if state.dead || state.row.atime == now || !due(&state.row) {
                return;
            }
        }
        let mut state = node.write();
        state.row.atime = now;
        if !state.atime_dirty {
            state.atime_dirty = true;
            drop(state);
            let mut atimes = self.atimes.lock();
            atimes.push(node.ino);
            if atimes.len() >= ATIMES_MAX {
                drop(atimes);
                if let Err(error) = self.write_atimes() {
                    tracing::warn!(%error, "access times were not written");
                }
            }
        }
    }

    /// Writes the access times that are only in memory.
    pub fn write_atimes(&self) -> Result<(), FsError> {
        let inos = std::mem::take(&mut *self.atimes.lock());
        for group in inos.chunks(256) {
            let mut txn = self.rows.begin();
            // One lock at a time: a row may be newer than its atime by the time the record is made, so it is
            // written under its lock, which is kept until the commit.
            let mut sorted = group.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            let nodes = sorted.iter().filter_map(|ino| self.nodes.peek(*ino)).collect::<Vec<_>>();
            let mut states = nodes.iter().map(|node| (node.ino, node.write())).collect::<Vec<_>>();
            let mut any = false;
            for (ino, state) in &mut states {
                if state.atime_dirty && !state.dead {
                    txn.put_inode_unchanged(*ino, &state.row);
                    any = true;
                }
                state.atime_dirty = false;
            }
            if any {
                txn.commit()?;
            }
        }
        Ok(())
    }

    /// Finishes a record that changed an inode's data: puts the row, commits, and makes memory agree.
    pub(super) fn commit_row(
        &self,
        mut txn: crate::rows::RowTxn<'_>,
        ino: Ino,
        state: &mut State,
        mut row: InodeRow,
    ) -> Result<holdfast_store::Lsn, FsError> {
        txn.put_inode(ino, &row);
        let lsn = txn.commit()?;
        row.lsn = lsn;
        state.row = row;
        state.atime_dirty = false;
        Ok(lsn)
    }
}
