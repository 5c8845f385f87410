//! New inodes and new names: create, mkdir, mknod, symlink, link.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use holdfast_content::class::Class;

use crate::rows::inode::SYMLINK_TARGET_BYTES_MAX;
use crate::rows::{EntryRow, Ino, Kind};

use super::attr::Attr;
use super::dir::Found;
use super::error::FsError;
use super::extents::ExtentMap;
use super::node::{DirMap, Node, Slot, State, lock_many};
use super::{Caller, LINKS_MAX, Synced, Vfs, blank, check_name, touch_dir};

/// What to create.
#[derive(Debug, Clone, Copy)]
pub struct NewNode<'a> {
    pub kind: Kind,
    /// As the program gave it; the umask is applied here, unless a default ACL takes its place.
    pub perm: u16,
    pub umask: u16,
    /// Devices only.
    pub rdev: u32,
    /// Symlinks only.
    pub target: &'a [u8],
}

impl NewNode<'_> {
    pub fn file(perm: u16, umask: u16) -> Self {
        Self { kind: Kind::File, perm, umask, rdev: 0, target: b"" }
    }

    pub fn dir(perm: u16, umask: u16) -> Self {
        Self { kind: Kind::Dir, perm, umask, rdev: 0, target: b"" }
    }
}

impl Vfs {
    /// Creates an inode and its first name.
    pub fn create(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        new: &NewNode<'_>,
    ) -> Result<Attr, FsError> {
        self.create_node(caller, parent, name, new, false)
    }

    /// The same for a file, opened at once (see [`Vfs::open_file`]).
    pub fn create_open(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        new: &NewNode<'_>,
    ) -> Result<Attr, FsError> {
        self.create_node(caller, parent, name, new, true)
    }

    pub fn symlink(&self, caller: &Caller, parent: Ino, name: &[u8], target: &[u8]) -> Result<Attr, FsError> {
        if target.is_empty() {
            return Err(FsError::NotFound);
        }
        if target.len() > SYMLINK_TARGET_BYTES_MAX {
            return Err(FsError::NameTooLong);
        }
        let new = NewNode { kind: Kind::Symlink, perm: 0o777, umask: 0, rdev: 0, target };
        self.create_node(caller, parent, name, &new, false)
    }

    pub fn readlink(&self, ino: Ino) -> Result<Bytes, FsError> {
        let node = self.node(ino)?;
        self.note_read(&node);
        let state = node.read();
        if state.row.kind != Kind::Symlink {
            return Err(FsError::Invalid);
        }
        Ok(state.row.target.clone())
    }

    fn create_node(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        new: &NewNode<'_>,
        open: bool,
    ) -> Result<Attr, FsError> {
        let made = self.make_node(caller, parent, name, new, open)?;
        self.settle(made, Synced::Names)
    }

    fn make_node(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        new: &NewNode<'_>,
        open: bool,
    ) -> Result<Attr, FsError> {
        self.require_writable()?;
        check_name(name)?;
        if name == b"." || name == b".." {
            return Err(FsError::Exists);
        }
        let dir = self.node(parent)?;
        let ino = self.new_ino()?;
        let mut state = dir.write();
        state.require_live_dir()?;
        self.load_dir_if_worth(parent, &mut state)?;
        let Found::Free { tag } = self.find_slot(&state, parent, name)? else {
            return Err(FsError::Exists);
        };
        self.require_space(0)?;
        let now = self.now();
        let (gid, inherited) = inherit_group(&state, caller.gid, new.kind);
        let mut row = blank(new.kind, (new.perm | inherited) & 0o7777, caller.uid, gid, now, &self.options);
        row.rdev = if matches!(new.kind, Kind::CharDevice | Kind::BlockDevice) { new.rdev } else { 0 };
        let mut dir_row = touch_dir(&state, now);
        dir_row.size += 1;
        match new.kind {
            Kind::Dir => {
                row.nlink = 2;
                row.parent = parent;
                dir_row.nlink = dir_row.nlink.saturating_add(1);
            }
            Kind::Symlink => {
                row.size = new.target.len() as u64;
                row.target = Bytes::copy_from_slice(new.target);
            }
            // By which a seal knows what the file's data has to survive.
            Kind::File => row.parent = parent,
            _ => {}
        }
        let mut txn = self.rows.begin();
        self.inherit_acl(&mut txn, parent, &state, ino, new, &mut row)?;
        txn.put_inode(ino, &row);
        txn.put_entry(
            parent,
            tag,
            &EntryRow::Name { ino, kind: new.kind, name: Bytes::copy_from_slice(name) },
        );
        let lsn = {
            txn.put_inode(parent, &dir_row);
            txn.commit()?
        };
        row.lsn = lsn;
        dir_row.lsn = lsn;
        state.row = dir_row;
        state.atime_dirty = false;
        let attr = Attr::of(ino, &row);
        let mut child = State::new(row);
        match new.kind {
            Kind::Dir => child.dir = Some(DirMap::new()),
            Kind::File => child.extents = Some(ExtentMap::new()),
            _ => {}
        }
        // Into the cache before the name can be found, or a look-up would load it a second time.
        let node = self.nodes.insert(ino, child);
        if open {
            node.opens.fetch_add(1, Ordering::Relaxed);
        }
        self.apply_slot(&mut state, tag, Slot::new(ino, new.kind, name), false);
        Ok(attr)
    }

    /// Gives an inode one more name.
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        let linked = self.add_name(ino, parent, name)?;
        self.settle(linked, Synced::Names)
    }

    fn add_name(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        self.require_writable()?;
        check_name(name)?;
        if name == b"." || name == b".." {
            return Err(FsError::Exists);
        }
        let (node, dir): (Arc<Node>, Arc<Node>) = (self.node(ino)?, self.node(parent)?);
        if ino == parent {
            return Err(FsError::NotPermitted);
        }
        let policies = self.policies()?;
        let class = self.class_below(&policies, parent)?;
        let mut locked = lock_many(&[&node, &dir]);
        let now = self.now();
        let mut row = {
            let state = locked.get(ino)?;
            if state.row.kind == Kind::Dir {
                return Err(FsError::NotPermitted);
            }
            if state.dead || state.row.nlink == 0 {
                return Err(FsError::NotFound);
            }
            state.row.clone()
        };
        let state = locked.get(parent)?;
        state.require_live_dir()?;
        self.load_dir_if_worth(parent, state)?;
        let Found::Free { tag } = self.find_slot(state, parent, name)? else {
            return Err(FsError::Exists);
        };
        if row.nlink >= LINKS_MAX {
            return Err(FsError::TooManyLinks);
        }
        self.require_space(0)?;
        row.nlink += 1;
        row.ctime = now;
        let mut dir_row = touch_dir(state, now);
        dir_row.size += 1;
        let mut txn = self.rows.begin();
        txn.put_entry(
            parent,
            tag,
            &EntryRow::Name { ino, kind: row.kind, name: Bytes::copy_from_slice(name) },
        );
        txn.put_inode(ino, &row);
        txn.put_inode(parent, &dir_row);
        if !policies.is_empty() {
            self.note_moved(&policies, &mut txn, (ino, &row), (Class::of(0), class));
        }
        let lsn = txn.commit()?;
        row.lsn = lsn;
        dir_row.lsn = lsn;
        state.row = dir_row;
        state.atime_dirty = false;
        self.apply_slot(state, tag, Slot::new(ino, row.kind, name), false);
        let attr = Attr::of(ino, &row);
        let state = locked.get(ino)?;
        state.row = row;
        state.atime_dirty = false;
        Ok(attr)
    }
}

/// The group of a new inode, and the bit that a new directory takes over: in a setgid directory, the directory's.
pub(super) fn inherit_group(dir: &State, caller_gid: u32, kind: Kind) -> (u32, u16) {
    if dir.row.perm & 0o2000 == 0 {
        return (caller_gid, 0);
    }
    (dir.row.gid, if kind == Kind::Dir { 0o2000 } else { 0 })
}
