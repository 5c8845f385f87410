//! `fuser::Filesystem` over a [`Vfs`].
//!
//! Requests that cannot wait are answered on the thread that read them (a hand-over costs more than most of them).
//! Those that can go to a pool: fsync, and whatever of a restored drive is not on this machine yet.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::rows::{Ino, Kind, NAME_BYTES_MAX};
use crate::vfs::{
    AllocateMode, Attr, Caller, FsError, NewNode, RenameMode, SeekTo, SetAttr, SetMode, TimeSet, Vfs,
    WriteMode,
};

use super::MountOptions;
use super::convert::{attr, errno, kind, no_attr, time, time_set};
use super::pool::{Late, Pool};

/// Names and attributes stay valid in the kernel: nobody but the kernel changes them.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The largest write request, and reply to a read.
const IO_BYTES_MAX: u32 = 1 << 20;
/// Requests that the kernel may have under way in the background (readahead, writeback): slow reads of some files
/// must not keep others from being written.
const BACKGROUND_MAX: u16 = 256;
/// From here on the kernel slows down who fills the background.
const CONGESTION: u16 = 192;
/// fsyncs under way at once; they share syncs of the log, so more threads mean fewer syncs.
const SYNC_THREADS_MAX: usize = 32;
/// Requests waiting for the network at once.
const NETWORK_THREADS_MAX: usize = 32;
/// A request that could not even begin by then is answered with ETIMEDOUT. The rest of its 10 s is the network's.
const NETWORK_PATIENCE: Duration = Duration::from_secs(2);
/// Entries fetched for one readdir reply.
const DIR_PAGE: usize = 256;

pub(super) struct Edge {
    vfs: Arc<Vfs>,
    writeback: bool,
    max_read: u32,
    sync: Pool,
    network: Arc<Pool>,
}

thread_local! {
    /// Read replies are filled here and sent from here.
    static READ_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Edge {
    pub(super) fn new(vfs: Arc<Vfs>, options: &MountOptions) -> Self {
        Self {
            vfs,
            writeback: options.writeback,
            max_read: options.max_read.unwrap_or(IO_BYTES_MAX).min(IO_BYTES_MAX),
            sync: Pool::new("holdfast-sync", SYNC_THREADS_MAX, Duration::MAX),
            network: Arc::new(Pool::new("holdfast-fetch", NETWORK_THREADS_MAX, NETWORK_PATIENCE)),
        }
    }

    /// Runs `f` here, or where it may wait if answering for `ino` (or for `name` in it) could need the network.
    fn serve(&self, ino: Ino, name: Option<&OsStr>, f: impl FnOnce(&Vfs, Late) + Send + 'static) {
        if self.vfs.may_block(ino, name.map(OsStr::as_bytes)) {
            let vfs = self.vfs.clone();
            self.network.run(move |late| f(&vfs, late));
        } else {
            f(&self.vfs, Late(false));
        }
    }
}

fn caller(req: &Request) -> Caller {
    // Capabilities are not in a request; root has them.
    Caller { uid: req.uid(), gid: req.gid(), privileged: req.uid() == 0 }
}

fn perm(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

fn reply_empty(reply: ReplyEmpty, result: Result<(), FsError>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

fn reply_entry(reply: ReplyEntry, result: Result<Attr, FsError>) {
    match result {
        Ok(found) => reply.entry(&TTL, &attr(&found), Generation(u64::from(found.generation))),
        Err(error) => reply.error(errno(&error)),
    }
}

fn reply_attr(reply: ReplyAttr, result: Result<Attr, FsError>) {
    match result {
        Ok(found) => reply.attr(&TTL, &attr(&found)),
        Err(error) => reply.error(errno(&error)),
    }
}

/// getxattr and listxattr: the size when asked for, the bytes if they fit.
fn reply_xattr(reply: ReplyXattr, size: u32, result: Result<bytes::Bytes, FsError>) {
    match result {
        Ok(bytes) => match u32::try_from(bytes.len()) {
            Ok(len) if size == 0 => reply.size(len),
            Ok(len) if len <= size => reply.data(&bytes),
            _ => reply.error(Errno::ERANGE),
        },
        // Asked for before almost every write: not worth a log line.
        Err(FsError::NoAttribute) => reply.error(Errno::ENODATA),
        Err(error) => reply.error(errno(&error)),
    }
}

fn read(vfs: &Vfs, late: Late, ino: Ino, offset: u64, size: usize, reply: ReplyData) {
    let mut buffer = vec![0; size];
    let result = if late.0 { Err(FsError::TimedOut) } else { vfs.read(ino, offset, &mut buffer) };
    match result {
        Ok(n) => reply.data(buffer.get(..n).unwrap_or_default()),
        Err(error) => reply.error(errno(&error)),
    }
}

fn readdirplus(vfs: &Vfs, late: Late, ino: Ino, mut offset: u64, mut reply: ReplyDirectoryPlus) {
    if late.0 {
        return reply.error(Errno::ETIMEDOUT);
    }
    loop {
        let page = match vfs.readdir(ino, offset, DIR_PAGE) {
            Ok(page) => page,
            Err(error) => return reply.error(errno(&error)),
        };
        let last = page.len() < DIR_PAGE;
        for entry in page {
            offset = entry.cookie;
            // A name that went meanwhile is left out. (The kernel counts no look-up for "." and "..".)
            let Ok(found) = vfs.getattr(entry.ino) else { continue };
            let name = OsStr::from_bytes(&entry.name);
            let generation = Generation(u64::from(found.generation));
            if reply.add(INodeNo(entry.ino), entry.cookie, name, &TTL, &attr(&found), generation) {
                return reply.ok();
            }
        }
        if last {
            return reply.ok();
        }
    }
}

fn readdir(vfs: &Vfs, late: Late, ino: Ino, mut offset: u64, mut reply: ReplyDirectory) {
    if late.0 {
        return reply.error(Errno::ETIMEDOUT);
    }
    loop {
        let page = match vfs.readdir(ino, offset, DIR_PAGE) {
            Ok(page) => page,
            Err(error) => return reply.error(errno(&error)),
        };
        let last = page.len() < DIR_PAGE;
        for entry in page {
            offset = entry.cookie;
            if reply.add(INodeNo(entry.ino), entry.cookie, kind(entry.kind), OsStr::from_bytes(&entry.name)) {
                return reply.ok();
            }
        }
        if last {
            return reply.ok();
        }
    }
}

impl Filesystem for Edge {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2
            | InitFlags::FUSE_POSIX_ACL
            | InitFlags::FUSE_DONT_MASK
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP
            | InitFlags::FUSE_NO_OPENDIR_SUPPORT
            | InitFlags::FUSE_EXPORT_SUPPORT;
        if self.writeback {
            wanted |= InitFlags::FUSE_WRITEBACK_CACHE;
        }
        // Each one that an older kernel lacks is done without.
        for flag in wanted.iter() {
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_write(IO_BYTES_MAX);
        if let Err(most) = config.set_max_readahead(self.max_read) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(BACKGROUND_MAX);
        let _ = config.set_congestion_threshold(CONGESTION);
        Ok(())
    }

    fn destroy(&mut self) {
        if let Err(error) = self.vfs.write_atimes() {
            tracing::warn!(%error, "access times were not written");
        }
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let owned = name.to_owned();
        self.serve(parent.0, Some(name), move |vfs, late| {
            let result = if late.0 { Err(FsError::TimedOut) } else { vfs.lookup(parent.0, owned.as_bytes()) };
            match result {
                Err(FsError::NotFound) => reply.entry(&TTL, &no_attr(), Generation(0)),
                other => reply_entry(reply, other),
            }
        });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, _nlookup: u64) {
        self.vfs.forget(ino.0);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.serve(ino.0, None, move |vfs, _| reply_attr(reply, vfs.getattr(ino.0)));
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
        let caller = caller(req);
        let set = SetAttr {
            perm: mode.map(perm),
            uid,
            gid,
            size,
            atime: atime.map(time_set),
            mtime: mtime.map(time_set),
            ctime: ctime.map(time),
        };
        self.serve(ino.0, None, move |vfs, _| reply_attr(reply, vfs.setattr(&caller, ino.0, &set)));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        self.serve(ino.0, None, move |vfs, _| match vfs.readlink(ino.0) {
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
        let new = NewNode { kind, perm: perm(mode), umask: perm(umask), rdev, target: b"" };
        reply_entry(reply, self.vfs.create(&caller(req), parent.0, name.as_bytes(), &new));
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let new = NewNode::dir(perm(mode), perm(umask));
        reply_entry(reply, self.vfs.create(&caller(req), parent.0, name.as_bytes(), &new));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.vfs.unlink(parent.0, name.as_bytes()));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.vfs.rmdir(parent.0, name.as_bytes()));
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = target.as_os_str().as_bytes();
        reply_entry(reply, self.vfs.symlink(&caller(req), parent.0, name.as_bytes(), target));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            f if f.is_empty() => RenameMode::Replace,
            RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return reply.error(Errno::EINVAL),
        };
        let (from, to) = ((parent.0, name.as_bytes()), (newparent.0, newname.as_bytes()));
        reply_empty(reply, self.vfs.rename(from, to, mode));
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        reply_entry(reply, self.vfs.link(ino.0, newparent.0, newname.as_bytes()));
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let truncate = flags.0 & libc::O_TRUNC != 0;
        let caller = caller(req);
        self.serve(ino.0, None, move |vfs, _| {
            let opened = vfs.open_file(ino.0).and_then(|_| {
                let set = SetAttr { size: Some(0), mtime: Some(TimeSet::Now), ..SetAttr::default() };
                let truncated = if truncate { vfs.setattr(&caller, ino.0, &set).map(drop) } else { Ok(()) };
                truncated.inspect_err(|_| drop(vfs.release_file(ino.0)))
            });
            match opened {
                // Only the kernel changes data, so what it has cached stays true.
                Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let new = NewNode::file(perm(mode), perm(umask));
        match self.vfs.create_open(&caller(req), parent.0, name.as_bytes(), &new) {
            Ok(new) => {
                let generation = Generation(u64::from(new.generation));
                reply.created(&TTL, &attr(&new), generation, FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        reply_empty(reply, self.vfs.release_file(ino.0));
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
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let size = size.min(IO_BYTES_MAX) as usize;
        READ_BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            let Some(buffer) = buffer.get_mut(..size) else { return reply.error(Errno::EIO) };
            match self.vfs.read_without_waiting(ino.0, offset, buffer) {
                Ok(Some(n)) => reply.data(buffer.get(..n).unwrap_or_default()),
                Ok(None) => {
                    let vfs = self.vfs.clone();
                    self.network.run(move |late| read(&vfs, late, ino.0, offset, size, reply));
                }
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // The kernel has made an offset of O_APPEND: it alone knows what its cache appended.
        let mode = WriteMode {
            append: false,
            kill_privileges: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
            from_cache: write_flags.contains(WriteFlags::FUSE_WRITE_CACHE),
        };
        match self.vfs.write(ino.0, offset, data, mode) {
            Ok(n) => reply.written(u32::try_from(n).unwrap_or(u32::MAX)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        match self.vfs.is_durable(ino.0) {
            Ok(true) => reply.ok(),
            Ok(false) => {
                let vfs = self.vfs.clone();
                self.sync.run(move |_| reply_empty(reply, vfs.fsync(ino.0)));
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn fsyncdir(&self, req: &Request, ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.fsync(req, ino, fh, datasync, reply);
    }

    /// Not implemented, on purpose: directories need no handle, and the kernel then caches their entries.
    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.serve(ino.0, None, move |vfs, late| readdir(vfs, late, ino.0, offset, reply));
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.serve(ino.0, None, move |vfs, late| readdirplus(vfs, late, ino.0, offset, reply));
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
            _ => return reply.error(Errno::EINVAL),
        };
        reply_empty(reply, self.vfs.setxattr(&caller(req), ino.0, name.as_bytes(), value, mode));
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let owned = name.to_owned();
        self.serve(ino.0, None, move |vfs, _| {
            reply_xattr(reply, size, vfs.getxattr(ino.0, owned.as_bytes()))
        });
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.serve(ino.0, None, move |vfs, _| {
            let list = vfs.listxattr(ino.0).map(|names| {
                let mut list = Vec::new();
                for name in names {
                    list.extend_from_slice(&name);
                    list.push(0);
                }
                list.into()
            });
            reply_xattr(reply, size, list);
        });
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.vfs.removexattr(ino.0, name.as_bytes()));
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
        reply_empty(reply, self.vfs.fallocate(&caller(req), ino.0, offset, length, mode));
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
        self.serve(ino.0, None, move |vfs, _| {
            let found = vfs.seek(ino.0, from, to);
            match found.map(|at| i64::try_from(at).unwrap_or(i64::MAX)) {
                Ok(at) => reply.offset(at),
                Err(error) => reply.error(errno(&error)),
            }
        });
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
        let caller = caller(req);
        // The answer has 32 bits.
        let len = len.min(1 << 30);
        let vfs = self.vfs.clone();
        // A part of a chunk is copied by reading it, perhaps from afar.
        self.network.run(move |late| {
            let (from, to) = ((ino_in.0, offset_in), (ino_out.0, offset_out));
            let done =
                if late.0 { Err(FsError::TimedOut) } else { vfs.copy_file_range(&caller, from, to, len) };
            match done {
                Ok(n) => reply.written(u32::try_from(n).unwrap_or(u32::MAX)),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }
}
