//! `fuser::Filesystem` over a [`Vfs`].
//!
//! Requests that cannot wait are answered on the thread that read them (a hand-over costs more than most of them).
//! Those that can go to a pool: fsync, looking for holes under dirty pages, and whatever of a restored drive is not on
//! this machine yet, or is locked by who waits for that.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    IoctlFlags, KernelConfig, LockOwner, Notifier, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use holdfast_store::{Clock, SystemClock};

use crate::rows::{Ino, Kind, NAME_BYTES_MAX};
use crate::vfs::{
    AllocateMode, Atime, DURABILITY_XATTR, FsError, NewNode, RenameMode, SeekTo, SetAttr, SetMode, TimeSet,
    Vfs,
};

use super::MountOptions;
use super::caller::{Who, caller};
use super::convert::{attr, errno, no_attr, rename_mode, time, time_set};
use super::init::{IO_BYTES_MAX, negotiate};
use super::pacing::Pacing;
use super::pool::{Late, Pool};
use super::reply::{
    TTL, read, readdir, readdirplus, reply_attr, reply_empty, reply_entry, reply_names, reply_xattr,
};
use super::stale::SetIds;
use super::thumbnails::Thumbnailers;
use super::writers::Writers;

/// fsyncs under way at once; they share syncs of the log, so more threads mean fewer syncs.
const SYNC_THREADS_MAX: usize = 32;
/// Ranges copied at once; each has some milliseconds of work.
const COPY_THREADS_MAX: usize = 4;
/// Requests waiting for the network at once.
const NETWORK_THREADS_MAX: usize = 32;
/// A request that could not even begin by then is answered with ETIMEDOUT. The rest of its 10 s is the network's.
const NETWORK_PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Edge {
    pub(super) vfs: Arc<Vfs>,
    pub(super) writeback: bool,
    max_read: u32,
    pub(super) sync: Pool,
    pub(super) copies: Pool,
    pub(super) network: Arc<Pool>,
    pub(super) pacing: Pacing,
    /// Who may have pages in the kernel that we have not seen yet.
    pub(super) writers: Writers,
    /// Who gets nothing that would have to come over the network; `None`: everybody gets everything.
    thumbnailers: Option<Thumbnailers>,
    /// The way to tell the kernel something by ourselves; there once it has answered our first words.
    pub(super) notifier: Arc<OnceLock<Notifier>>,
}

thread_local! {
    /// Read replies are filled here and sent from here.
    static READ_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Edge {
    pub(super) fn new(vfs: Arc<Vfs>, options: &MountOptions) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let network = Pool::new("holdfast-fetch", NETWORK_THREADS_MAX, NETWORK_PATIENCE, clock.clone());
        Self {
            vfs,
            writeback: options.writeback,
            max_read: options.max_read.unwrap_or(IO_BYTES_MAX).min(IO_BYTES_MAX),
            pacing: Pacing::new(clock.clone()),
            sync: Pool::new("holdfast-sync", SYNC_THREADS_MAX, Duration::MAX, clock.clone()),
            copies: Pool::new("holdfast-copy", COPY_THREADS_MAX, Duration::MAX, clock.clone()),
            network: Arc::new(network),
            writers: Writers::default(),
            thumbnailers: (!options.thumbnails).then(|| Thumbnailers::new(clock)),
            notifier: Arc::default(),
        }
    }

    /// Where the session's notifier goes before the first request is read.
    pub(super) fn notifier(&self) -> Arc<OnceLock<Notifier>> {
        self.notifier.clone()
    }

    pub(super) fn set_ids(&self, ino: Ino, kills: bool) -> SetIds {
        SetIds::before(&self.vfs, &self.notifier, ino, kills)
    }
}

fn perm(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

impl Filesystem for Edge {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate(config, self.writeback, self.max_read, self.vfs.is_paced());
        Ok(())
    }

    fn destroy(&mut self) {
        if let Err(error) = self.vfs.sync_all() {
            tracing::warn!(%error, "what was done last was not synced");
        }
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let owned = name.to_owned();
        self.run(self.vfs.may_block(parent.0, Some(name.as_bytes())), move |vfs, late| {
            match late.in_time().and_then(|()| vfs.lookup(parent.0, owned.as_bytes())) {
                Err(FsError::NotFound) => reply.entry(&TTL, &no_attr(), Generation(0)),
                other => reply_entry(reply, other),
            }
        });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, _nlookup: u64) {
        self.vfs.forget(ino.0);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.serve(ino.0, move |vfs, late| {
            reply_attr(reply, late.in_time().and_then(|()| vfs.getattr(ino.0)));
        });
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
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let who = Who::of(req);
        // A truncation moves mtime even where the size stays. With writeback the kernel keeps that time, and says when it moves.
        let resized = (size.is_some() && !self.writeback).then_some(TimeSet::Now);
        let set = SetAttr {
            perm: mode.map(perm),
            uid,
            gid,
            size,
            atime: atime.map(time_set),
            mtime: mtime.map(time_set).or(resized),
            ctime: ctime.map(time),
        };
        self.serve_xattrs(ino.0, move |vfs, late| {
            let changed = |()| vfs.setattr(&who.giving(vfs, ino.0, gid), ino.0, &set);
            reply_attr(reply, late.in_time().and_then(changed));
        });
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        self.serve(ino.0, move |vfs, late| match late.in_time().and_then(|()| vfs.readlink(ino.0)) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(&error)),
        });
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
        // A mode without a kind means a file.
        let kind = if mode & libc::S_IFMT == 0 { Some(Kind::File) } else { Kind::from_mode(mode) };
        let Some(kind) = kind.filter(|kind| *kind != Kind::Dir && *kind != Kind::Symlink) else {
            return reply.error(Errno::EINVAL);
        };
        let (caller, owned) = (caller(req), name.to_owned());
        self.serve_new_name(parent.0, name, move |vfs, late| {
            let new = NewNode { kind, perm: perm(mode), umask: perm(umask), rdev, target: b"" };
            let made = late.in_time().and_then(|()| vfs.create(&caller, parent.0, owned.as_bytes(), &new));
            reply_entry(reply, made);
        });
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let (caller, owned) = (caller(req), name.to_owned());
        self.serve_new_name(parent.0, name, move |vfs, late| {
            let new = NewNode::dir(perm(mode), perm(umask));
            let made = late.in_time().and_then(|()| vfs.create(&caller, parent.0, owned.as_bytes(), &new));
            reply_entry(reply, made);
        });
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let owned = name.to_owned();
        self.serve_name(parent.0, name, move |vfs, late| {
            reply_empty(reply, late.in_time().and_then(|()| vfs.unlink(parent.0, owned.as_bytes())));
        });
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let owned = name.to_owned();
        self.serve_name(parent.0, name, move |vfs, late| {
            reply_empty(reply, late.in_time().and_then(|()| vfs.rmdir(parent.0, owned.as_bytes())));
        });
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (caller, owned, target) = (caller(req), name.to_owned(), target.to_owned());
        self.serve_new_name(parent.0, name, move |vfs, late| {
            let target = target.as_os_str().as_bytes();
            let made = late.in_time().and_then(|()| vfs.symlink(&caller, parent.0, owned.as_bytes(), target));
            reply_entry(reply, made);
        });
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
        let Some(mode) = rename_mode(flags, (req.uid(), req.gid())) else {
            return reply.error(Errno::EINVAL);
        };
        // Between folders those above them are walked.
        let may_wait = (parent != newparent && self.vfs.has_base())
            || (matches!(mode, RenameMode::Whiteout { .. }) && self.vfs.has_base())
            || self.vfs.may_block(parent.0, Some(name.as_bytes()))
            || self.vfs.may_block(newparent.0, Some(newname.as_bytes()));
        let (name, newname) = (name.to_owned(), newname.to_owned());
        self.run(may_wait, move |vfs, late| {
            let (from, to) = ((parent.0, name.as_bytes()), (newparent.0, newname.as_bytes()));
            reply_empty(reply, late.in_time().and_then(|()| vfs.rename(from, to, mode)));
        });
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let may_wait =
            self.vfs.may_block(ino.0, None) || self.vfs.may_block(newparent.0, Some(newname.as_bytes()));
        let newname = newname.to_owned();
        self.run(may_wait, move |vfs, late| {
            reply_entry(
                reply,
                late.in_time().and_then(|()| vfs.link(ino.0, newparent.0, newname.as_bytes())),
            );
        });
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let truncate = flags.0 & libc::O_TRUNC != 0;
        let who = Who::of(req);
        let writers = self.writers.clone();
        let reads = flags.0 & libc::O_ACCMODE == libc::O_RDONLY;
        let draws = reads && self.thumbnailers.as_ref().is_some_and(|known| known.contain(req.pid()));
        let may_wait = draws || self.vfs.may_block(ino.0, None);
        let set_ids = self.set_ids(ino.0, truncate);
        let serve = move |vfs: &Vfs, late: Late| {
            if draws && !vfs.is_here(ino.0).unwrap_or(true) {
                return reply.error(Errno::from_i32(libc::EREMOTE));
            }
            let opened = late.in_time().and_then(|()| vfs.open_file(ino.0)).and_then(|_| {
                let set = SetAttr { size: Some(0), mtime: Some(TimeSet::Now), ..SetAttr::default() };
                let emptied = || vfs.setattr(&who.towards(vfs, ino.0), ino.0, &set).map(drop);
                let truncated = if truncate { emptied() } else { Ok(()) };
                truncated.inspect_err(|_| drop(vfs.release_file(ino.0)))
            });
            match set_ids.after(opened) {
                // Only the kernel changes data, so what it has cached stays true.
                Ok(()) => {
                    writers.opened(ino.0, flags.0);
                    reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
                }
                Err(error) => reply.error(errno(&error)),
            }
        };
        // Who only reads, or makes room, does not wait for it.
        let writes = !reads && !truncate;
        if writes { self.paced(0, may_wait, serve) } else { self.run(may_wait, serve) }
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
        let (caller, owned, writers) = (caller(req), name.to_owned(), self.writers.clone());
        self.serve_new_name(parent.0, name, move |vfs, late| {
            let new = NewNode::file(perm(mode), perm(umask));
            match late.in_time().and_then(|()| vfs.create_open(&caller, parent.0, owned.as_bytes(), &new)) {
                Ok(new) => {
                    writers.opened(new.ino, flags);
                    let generation = Generation(u64::from(new.generation));
                    let keep = FopenFlags::FOPEN_KEEP_CACHE;
                    reply.created(&TTL, &attr(&new), generation, FileHandle(0), keep);
                }
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.writers.closed(ino.0, flags.0);
        self.serve(ino.0, move |vfs, _| reply_empty(reply, vfs.release_file(ino.0)));
    }

    /// Not implemented, on purpose: a write is in the log when it is answered, so closing has nothing to do. The
    /// kernel hears it once, and from then on writes its cache out on close without asking us.
    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let size = size.min(IO_BYTES_MAX) as usize;
        // Through a descriptor that only writes it is the kernel that reads, to fill up a page.
        let for_kernel = flags.0 & libc::O_ACCMODE == libc::O_WRONLY;
        let quiet = for_kernel || flags.0 & libc::O_NOATIME != 0;
        let atime = if quiet { Atime::Stays } else { Atime::Moves };
        READ_BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            let Some(buffer) = buffer.get_mut(..size) else { return reply.error(Errno::EIO) };
            match self.vfs.read_without_waiting(ino.0, offset, buffer, atime) {
                Ok(Some(n)) => reply.data(buffer.get(..n).unwrap_or_default()),
                Ok(None) => {
                    let vfs = self.vfs.clone();
                    self.network.run(move |late| read(&vfs, late, ino.0, offset, size, atime, reply));
                }
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.write_data(ino.0, Who::of(req), offset, data, write_flags, reply);
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        if self.vfs.is_durable(ino.0) {
            return reply.ok();
        }
        let vfs = self.vfs.clone();
        self.sync.run(move |_| reply_empty(reply, vfs.fsync(ino.0)));
    }

    fn fsyncdir(&self, req: &Request, ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.fsync(req, ino, fh, datasync, reply);
    }

    /// Not implemented, on purpose: directories need no handle, and the kernel then caches their entries.
    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.run(self.vfs.has_base(), move |vfs, late| readdir(vfs, late, ino.0, offset, reply));
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.run(self.vfs.has_base(), move |vfs, late| readdirplus(vfs, late, ino.0, offset, reply));
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let space = self.vfs.statfs();
        let unit = 4096;
        let (total, free) = (space.total / unit, space.free / unit);
        // Inodes are not counted out; a figure that grows with the room keeps `df -i` and installers content.
        let (files, files_free) = (total.saturating_mul(4), free.saturating_mul(4));
        reply.statfs(total, free, free, files, files_free, 4096, NAME_BYTES_MAX as u32, 4096);
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            0 => SetMode::Either,
            libc::XATTR_CREATE => SetMode::Create,
            libc::XATTR_REPLACE => SetMode::Replace,
            both if both == libc::XATTR_CREATE | libc::XATTR_REPLACE => SetMode::Both,
            _ => return reply.error(Errno::EINVAL),
        };
        let who = Who::of(req);
        let (name, value) = (name.to_owned(), value.to_vec());
        self.serve_xattrs(ino.0, move |vfs, late| {
            let name = name.as_bytes();
            let set = |()| vfs.setxattr(&who.towards(vfs, ino.0), ino.0, name, &value, mode);
            reply_empty(reply, late.in_time().and_then(set));
        });
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if name.as_bytes() == DURABILITY_XATTR {
            return self.durability(ino.0, size, reply);
        }
        let owned = name.to_owned();
        self.serve_xattrs(ino.0, move |vfs, late| {
            reply_xattr(reply, size, late.in_time().and_then(|()| vfs.getxattr(ino.0, owned.as_bytes())));
        });
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let caller = caller(req);
        self.serve_xattrs(ino.0, move |vfs, late| {
            reply_names(reply, size, late.in_time().and_then(|()| vfs.listxattr(&caller, ino.0)));
        });
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.serve_xattrs(ino.0, move |vfs, late| {
            reply_empty(reply, late.in_time().and_then(|()| vfs.removexattr(ino.0, name.as_bytes())));
        });
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let mode = match mode & !libc::FALLOC_FL_KEEP_SIZE {
            0 => AllocateMode::Reserve { keep_size },
            libc::FALLOC_FL_PUNCH_HOLE if keep_size => AllocateMode::Punch,
            libc::FALLOC_FL_ZERO_RANGE => AllocateMode::Zero { keep_size },
            _ => return reply.error(Errno::EOPNOTSUPP),
        };
        let (who, set_ids) = (Who::of(req), self.set_ids(ino.0, true));
        let allocate = move |vfs: &Vfs, _| {
            let caller = who.towards(vfs, ino.0);
            reply_empty(reply, set_ids.after(vfs.fallocate(&caller, ino.0, offset, length, mode)));
        };
        if mode == AllocateMode::Punch {
            self.serve(ino.0, allocate)
        } else {
            self.paced(length, self.vfs.may_block(ino.0, None), allocate)
        }
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let to = match whence {
            libc::SEEK_DATA => SeekTo::Data,
            libc::SEEK_HOLE => SeekTo::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(from) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        let seek = move |vfs: &Vfs, late: Late| {
            let found = late.in_time().and_then(|()| vfs.seek(ino.0, from, to));
            match found.map(|at| i64::try_from(at).unwrap_or(i64::MAX)) {
                Ok(at) => reply.offset(at),
                Err(error) => reply.error(errno(&error)),
            }
        };
        self.data_seek(ino.0, seek);
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (from, to) = ((ino_in.0, offset_in), (ino_out.0, offset_out));
        self.copy_data(Who::of(req), from, to, len, reply);
    }
}
