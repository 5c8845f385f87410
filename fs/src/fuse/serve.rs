//! Where a request is served: on the thread that read it, or on one that may wait for the network or for room.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::edge::Edge;
use super::pool::Late;
use crate::rows::Ino;
use crate::vfs::{Room, Vfs};

impl Edge {
    /// Runs `f` here, or on a thread that may wait.
    pub(super) fn run(&self, may_wait: bool, f: impl FnOnce(&Vfs, Late) + Send + 'static) {
        if may_wait {
            let vfs = self.vfs.clone();
            self.network.run(move |late| f(&vfs, late));
        } else if self.vfs.is_synced() {
            // Most changes wait for the disk.
            let vfs = self.vfs.clone();
            self.sync.run(move |late| f(&vfs, late));
        } else {
            f(&self.vfs, Late(false));
        }
    }

    /// Runs `f` where it may wait if answering for `ino` could need the network.
    pub(super) fn serve(&self, ino: Ino, f: impl FnOnce(&Vfs, Late) + Send + 'static) {
        self.run(self.vfs.may_block(ino, None), f);
    }

    /// The same for what also looks at extended attributes or ACLs of `ino`.
    pub(super) fn serve_xattrs(&self, ino: Ino, f: impl FnOnce(&Vfs, Late) + Send + 'static) {
        self.run(self.vfs.may_block_for_xattrs(ino), f);
    }

    /// Runs what needs `bytes` more room: at once, or where it may wait for it.
    pub(super) fn paced(&self, bytes: u64, may_wait: bool, f: impl FnOnce(&Vfs, Late) + Send + 'static) {
        if self.vfs.room(bytes) == Room::Waits {
            self.pacing.run(&self.vfs, bytes, |vfs| f(vfs, Late(false)));
        } else {
            self.run(may_wait, f);
        }
    }

    /// The same for a new name `name` in `parent`.
    pub(super) fn serve_new_name(
        &self,
        parent: Ino,
        name: &OsStr,
        f: impl FnOnce(&Vfs, Late) + Send + 'static,
    ) {
        let may_wait = self.vfs.may_block(parent, Some(name.as_bytes()))
            || self.vfs.may_block_for_xattrs(parent)
            || self.vfs.may_block_for_number();
        self.paced(0, may_wait, f);
    }

    /// The same for a change of the name `name` in `parent`.
    pub(super) fn serve_name(&self, parent: Ino, name: &OsStr, f: impl FnOnce(&Vfs, Late) + Send + 'static) {
        let may_wait =
            self.vfs.may_block(parent, Some(name.as_bytes())) || self.vfs.may_block_for_xattrs(parent);
        self.run(may_wait, f);
    }
}
