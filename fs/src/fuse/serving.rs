//! What the kernel speaks with: the drive as it is, and `.snapshots`, how it was.
//!
//! Sends each request to the one whose inode it names. The name `.snapshots` in the root is taken: it cannot be made, moved or removed.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo, IoctlFlags, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};

use super::affinity::Affinity;
use super::caller::caller;
use super::edge::Edge;
use super::frozen::{Frozen, NAME, is_frozen};
use super::init::IO_BYTES_MAX;
use crate::rows::{Ino, ROOT_INO};

pub(super) struct Serving {
    live: Edge,
    frozen: Frozen,
    affinity: Affinity,
}

impl Serving {
    pub(super) fn new(live: Edge, follow: bool) -> Self {
        let frozen = Frozen::new(live.vfs.clone(), live.network.clone());
        Self { live, frozen, affinity: Affinity::new(follow) }
    }

    fn is_shown(&self) -> bool {
        self.live.vfs.snapshots().is_some()
    }

    /// Why a name in `parent` cannot be made or removed, if so.
    fn refusal(&self, parent: Ino, name: &OsStr) -> Option<Errno> {
        if is_frozen(parent) {
            return Some(Errno::EROFS);
        }
        let taken = parent == ROOT_INO && name.as_bytes() == NAME && self.is_shown();
        taken.then_some(Errno::EBUSY)
    }
}

impl Filesystem for Serving {
    fn init(&mut self, req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.live.init(req, config)
    }

    fn destroy(&mut self) {
        self.live.destroy();
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.affinity.note(req.pid());
        if parent.0 == ROOT_INO && name.as_bytes() == NAME && self.is_shown() {
            return self.frozen.lookup_top(reply);
        }
        if is_frozen(parent.0) {
            return self.frozen.lookup(parent.0, name, reply);
        }
        self.live.lookup(req, parent, name, reply);
    }

    fn forget(&self, req: &Request, ino: INodeNo, nlookup: u64) {
        if is_frozen(ino.0) {
            return;
        }
        self.live.forget(req, ino, nlookup);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        self.affinity.note(req.pid());
        if is_frozen(ino.0) {
            return self.frozen.getattr(ino.0, reply);
        }
        self.live.getattr(req, ino, fh, reply);
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        crtime: Option<SystemTime>,
        chgtime: Option<SystemTime>,
        bkuptime: Option<SystemTime>,
        flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.affinity.note(req.pid());
        if is_frozen(ino.0) {
            return reply.error(Errno::EROFS);
        }
        self.live.setattr(
            req, ino, mode, uid, gid, size, atime, mtime, ctime, fh, crtime, chgtime, bkuptime, flags, reply,
        );
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        self.affinity.note(req.pid());
        if is_frozen(ino.0) {
            return self.frozen.readlink(ino.0, reply);
        }
        self.live.readlink(req, ino, reply);
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.affinity.note(req.pid());
        if let Some(error) = self.refusal(parent.0, name) {
            return reply.error(error);
        }
        self.live.mknod(req, parent, name, mode, umask, rdev, reply);
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        self.affinity.note(req.pid());
        if let Some(error) = self.refusal(parent.0, name) {
            return reply.error(error);
        }
        self.live.mkdir(req, parent, name, mode, umask, reply);
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.affinity.note(req.pid());
        if let Some(error) = self.refusal(parent.0, name) {
            return reply.error(error);
        }
        self.live.unlink(req, parent, name, reply);
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.affinity.note(req.pid());
        if let Some(error) = self.refusal(parent.0, name) {
            return reply.error(error);
        }
        self.live.rmdir(req, parent, name, reply);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        self.affinity.note(req.pid());
        if let Some(error) = self.refusal(parent.0, name) {
            return reply.error(error);
        }
        self.live.symlink(req, parent, name, target, reply);
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.affinity.note(req.pid());
        if let Some(error) = self.refusal(parent.0, name).or(self.refusal(newparent.0, newname)) {
            return reply.error(error);
        }
        self.live.rename(req, parent, name, newparent, newname, flags, reply);
    }

    fn link(&self, req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        self.affinity.note(req.pid());
        if let Some(error) = self.refusal(ino.0, OsStr::new("")).or(self.refusal(newparent.0, newname)) {
            return reply.error(error);
        }
        self.live.link(req, ino, newparent, newname, reply);
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.affinity.note(req.pid());
        if is_frozen(ino.0) {
            return self.frozen.open(flags, reply);
        }
        self.live.open(req, ino, flags, reply);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.affinity.note(req.pid());
        if let Some(error) = self.refusal(parent.0, name) {
            return reply.error(error);
        }
        self.live.create(req, parent, name, mode, umask, flags, reply);
    }

    fn release(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        flush: bool,
        reply: ReplyEmpty,
    ) {
        if is_frozen(ino.0) {
            return reply.ok();
        }
        self.live.release(req, ino, fh, flags, lock_owner, flush, reply);
    }

    fn flush(&self, req: &Request, ino: INodeNo, fh: FileHandle, owner: LockOwner, reply: ReplyEmpty) {
        self.affinity.note(req.pid());
        self.live.flush(req, ino, fh, owner, reply);
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.affinity.note_data(req.pid(), size as usize);
        if is_frozen(ino.0) {
            return self.frozen.read(ino.0, offset, size.min(IO_BYTES_MAX) as usize, reply);
        }
        self.live.read(req, ino, fh, offset, size, flags, lock_owner, reply);
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.affinity.note_data(req.pid(), data.len());
        if is_frozen(ino.0) {
            return reply.error(Errno::EROFS);
        }
        self.live.write(req, ino, fh, offset, data, write_flags, flags, lock_owner, reply);
    }

    fn fsync(&self, req: &Request, ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.affinity.note(req.pid());
        if is_frozen(ino.0) {
            return reply.ok();
        }
        self.live.fsync(req, ino, fh, datasync, reply);
    }

    fn fsyncdir(&self, req: &Request, ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.affinity.note(req.pid());
        if is_frozen(ino.0) {
            return reply.ok();
        }
        self.live.fsyncdir(req, ino, fh, datasync, reply);
    }

    fn opendir(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.affinity.note(req.pid());
        self.live.opendir(req, ino, flags, reply);
    }

    fn readdir(&self, req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.affinity.note(req.pid());
        if is_frozen(ino.0) {
            return self.frozen.readdir(ino.0, offset, reply);
        }
        self.live.readdir(req, ino, fh, offset, reply);
    }

    fn readdirplus(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.affinity.note(req.pid());
        if is_frozen(ino.0) {
            return self.frozen.readdirplus(ino.0, offset, reply);
        }
        self.live.readdirplus(req, ino, fh, offset, reply);
    }

    fn statfs(&self, req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.affinity.note(req.pid());
        self.live.statfs(req, ino, reply);
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        position: u32,
        reply: ReplyEmpty,
    ) {
        self.affinity.note(req.pid());
        if is_frozen(ino.0) {
            return reply.error(Errno::EROFS);
        }
        self.live.setxattr(req, ino, name, value, flags, position, reply);
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.affinity.note(req.pid());
        if is_frozen(ino.0) {
            return self.frozen.getxattr(ino.0, name, size, reply);
        }
        self.live.getxattr(req, ino, name, size, reply);
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.affinity.note(req.pid());
        if is_frozen(ino.0) {
            return self.frozen.listxattr(caller(req), ino.0, size, reply);
        }
        self.live.listxattr(req, ino, size, reply);
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.affinity.note(req.pid());
        if is_frozen(ino.0) {
            return reply.error(Errno::EROFS);
        }
        self.live.removexattr(req, ino, name, reply);
    }

    fn ioctl(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        flags: IoctlFlags,
        cmd: u32,
        in_data: &[u8],
        out_size: u32,
        reply: ReplyIoctl,
    ) {
        self.live.ioctl(req, ino, fh, flags, cmd, in_data, out_size, reply);
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.affinity.note(req.pid());
        if is_frozen(ino.0) {
            return reply.error(Errno::EROFS);
        }
        self.live.fallocate(req, ino, fh, offset, length, mode, reply);
    }

    fn lseek(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.affinity.note(req.pid());
        if is_frozen(ino.0) {
            return self.frozen.lseek(ino.0, offset, whence, reply);
        }
        self.live.lseek(req, ino, fh, offset, whence, reply);
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.affinity.note(req.pid());
        if is_frozen(ino_out.0) {
            return reply.error(Errno::EROFS);
        }
        // The kernel then copies by reading and writing.
        if is_frozen(ino_in.0) {
            return reply.error(Errno::EXDEV);
        }
        self.live
            .copy_file_range(req, ino_in, fh_in, offset_in, ino_out, fh_out, offset_out, len, flags, reply);
    }
}
