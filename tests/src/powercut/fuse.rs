//! The FUSE edge of the disk: decodes a request, calls `Disk`, encodes the answer.
//!
//! The kernel's page cache in front of it is write-through (no writeback cache), so that a write that was answered is in
//! `Disk`; pages dirtied through a shared mapping arrive when the kernel writes them back. Locks are left to the kernel.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, SessionACL, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;

use super::disk::{Attributes, Disk, Ino, Kind};

/// Short, so that what a test sees is the disk's state and not the kernel's memory of it.
const TTL: Duration = Duration::from_secs(1);
/// What statfs reports; the bytes are in memory, so a test keeps its own bounds.
const CAPACITY_BYTES: u64 = 64 << 30;

struct Edge(Arc<Mutex<Disk>>);

/// A mounted disk; dropped, it is unmounted.
pub struct MountedDisk {
    session: Option<BackgroundSession>,
}

pub fn mount(disk: Arc<Mutex<Disk>>, mountpoint: &Path) -> io::Result<MountedDisk> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("powercut".into()),
        MountOption::Subtype("powercut".into()),
        MountOption::DefaultPermissions,
    ];
    config.acl = SessionACL::Owner;
    config.n_threads = Some(2);
    let session = fuser::spawn_mount(Edge(disk), mountpoint, &config)?;
    Ok(MountedDisk { session: Some(session) })
}

impl MountedDisk {
    /// After the unmount: waits until every request is answered.
    pub fn join(mut self) -> io::Result<()> {
        match self.session.take() {
            Some(session) => session.join(),
            None => Ok(()),
        }
    }
}

impl Edge {
    fn attributes(disk: &Disk, ino: Ino) -> Result<FileAttr, i32> {
        let node = disk.node(ino)?;
        let (size, allocated) = match &node.kind {
            Kind::File(file) => (file.len(), file.allocated()),
            Kind::Symlink(target) => (target.len() as u64, 0),
            Kind::Folder => (4096, 4096),
            Kind::Special => (0, 0),
        };
        let a = &node.attributes;
        Ok(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: allocated / 512,
            atime: a.atime,
            mtime: a.mtime,
            ctime: a.ctime,
            crtime: a.ctime,
            kind: file_type(a.mode),
            perm: (a.mode & 0o7777) as u16,
            nlink: node.nlink,
            uid: a.uid,
            gid: a.gid,
            rdev: a.rdev,
            blksize: 4096,
            flags: 0,
        })
    }

    /// Makes an inode and answers with what the kernel then remembers.
    fn make(
        &self,
        req: &Request,
        (parent, name): (INodeNo, &OsStr),
        kind: Kind,
        mode: u32,
        rdev: u32,
    ) -> Result<FileAttr, i32> {
        let mut disk = self.0.lock();
        let now = SystemTime::now();
        let attributes = Attributes {
            mode,
            uid: req.uid(),
            gid: req.gid(),
            rdev,
            atime: now,
            mtime: now,
            ctime: now,
            xattrs: Default::default(),
        };
        let ino = disk.create(parent.0, name, kind, attributes)?;
        disk.remember(ino);
        Self::attributes(&disk, ino)
    }
}

fn file_type(mode: u32) -> FileType {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFSOCK => FileType::Socket,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

fn time(at: TimeOrNow) -> SystemTime {
    match at {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

fn errno(code: i32) -> Errno {
    Errno::from_i32(code)
}

fn reply_empty(reply: ReplyEmpty, result: Result<(), i32>) {
    match result {
        Ok(()) => reply.ok(),
        Err(code) => reply.error(errno(code)),
    }
}

fn reply_entry(reply: ReplyEntry, result: Result<FileAttr, i32>) {
    match result {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(code) => reply.error(errno(code)),
    }
}

fn reply_xattr(reply: ReplyXattr, size: u32, result: Result<Vec<u8>, i32>) {
    match result {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() <= size as usize => reply.data(&value),
        Ok(_) => reply.error(Errno::ERANGE),
        Err(code) => reply.error(errno(code)),
    }
}

impl Filesystem for Edge {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // O_TRUNC then arrives with open instead of a second request; either is fine, so a kernel without it is too.
        let _ = config.add_capabilities(InitFlags::FUSE_ATOMIC_O_TRUNC);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut disk = self.0.lock();
        let found = disk.lookup(parent.0, name).and_then(|ino| Self::attributes(&disk, ino));
        if let Ok(attr) = &found {
            disk.remember(attr.ino.0);
        }
        reply_entry(reply, found);
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.0.lock().forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match Self::attributes(&self.0.lock(), ino.0) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(code) => reply.error(errno(code)),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut disk = self.0.lock();
        let result = (|| {
            if let Some(size) = size {
                disk.set_len(ino.0, size)?;
            }
            disk.set_attributes(ino.0, |a| {
                if let Some(mode) = mode {
                    a.mode = (a.mode & libc::S_IFMT) | (mode & 0o7777);
                }
                a.uid = uid.unwrap_or(a.uid);
                a.gid = gid.unwrap_or(a.gid);
                a.atime = atime.map_or(a.atime, time);
                a.mtime = mtime.map_or(a.mtime, time);
            })?;
            Self::attributes(&disk, ino.0)
        })();
        match result {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(code) => reply.error(errno(code)),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.0.lock().node(ino.0).map(|node| &node.kind) {
            Ok(Kind::Symlink(target)) => reply.data(target),
            Ok(_) => reply.error(Errno::EINVAL),
            Err(code) => reply.error(errno(code)),
        }
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
        let kind = if file_type(mode) == FileType::RegularFile {
            Kind::File(Default::default())
        } else {
            Kind::Special
        };
        reply_entry(reply, self.make(req, (parent, name), kind, mode & !umask, rdev));
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let mode = libc::S_IFDIR | (mode & !umask & 0o7777);
        reply_entry(reply, self.make(req, (parent, name), Kind::Folder, mode, 0));
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let kind = Kind::Symlink(target.as_os_str().as_encoded_bytes().to_vec());
        reply_entry(reply, self.make(req, (parent, name), kind, libc::S_IFLNK | 0o777, 0));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.0.lock().remove(parent.0, name, false));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.0.lock().remove(parent.0, name, true));
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
        let result = self.0.lock().rename((parent.0, name), (newparent.0, newname), flags.bits());
        reply_empty(reply, result);
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let mut disk = self.0.lock();
        let result = disk.link(ino.0, newparent.0, newname).and_then(|()| Self::attributes(&disk, ino.0));
        if result.is_ok() {
            disk.remember(ino.0);
        }
        reply_entry(reply, result);
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.0 & libc::O_TRUNC != 0
            && let Err(code) = self.0.lock().set_len(ino.0, 0)
        {
            return reply.error(errno(code));
        }
        reply.opened(FileHandle(0), FopenFlags::empty());
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
        let mode = libc::S_IFREG | (mode & !umask & 0o7777);
        match self.make(req, (parent, name), Kind::File(Default::default()), mode, 0) {
            Ok(attr) => reply.created(&TTL, &attr, Generation(0), FileHandle(0), FopenFlags::empty()),
            Err(code) => reply.error(errno(code)),
        }
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
        let bytes = self.0.lock().file(ino.0).map(|file| file.read(offset, size as usize));
        match bytes {
            Ok(bytes) => reply.data(&bytes),
            Err(code) => reply.error(errno(code)),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.lock().write(ino.0, offset, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(code) => reply.error(errno(code)),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply_empty(reply, self.0.lock().sync_file(ino.0));
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply_empty(reply, self.0.lock().sync_folder(ino.0));
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let disk = self.0.lock();
        let entries = match disk.list(ino.0) {
            Ok(entries) => entries,
            Err(code) => return reply.error(errno(code)),
        };
        let dots = [(".".into(), ino.0), ("..".into(), ino.0)];
        for (index, (name, entry)) in dots.into_iter().chain(entries).enumerate().skip(offset as usize) {
            let kind = disk.node(entry).map_or(FileType::RegularFile, |node| file_type(node.attributes.mode));
            if reply.add(INodeNo(entry), index as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let blocks = CAPACITY_BYTES / 4096;
        reply.statfs(blocks, blocks, blocks, 1 << 20, 1 << 20, 4096, 255, 4096);
    }

    fn setxattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let mut disk = self.0.lock();
        let exists = disk.node(ino.0).is_ok_and(|node| node.attributes.xattrs.contains_key(name));
        let result = if flags & libc::XATTR_CREATE != 0 && exists {
            Err(libc::EEXIST)
        } else if flags & libc::XATTR_REPLACE != 0 && !exists {
            Err(libc::ENODATA)
        } else {
            disk.set_attributes(ino.0, |a| {
                a.xattrs.insert(name.to_owned(), value.to_vec());
            })
        };
        reply_empty(reply, result);
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let disk = self.0.lock();
        let value =
            disk.node(ino.0).and_then(|node| node.attributes.xattrs.get(name).cloned().ok_or(libc::ENODATA));
        reply_xattr(reply, size, value);
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.0.lock().node(ino.0).map(|node| {
            let mut list = Vec::new();
            for name in node.attributes.xattrs.keys() {
                list.extend_from_slice(name.as_encoded_bytes());
                list.push(0);
            }
            list
        });
        reply_xattr(reply, size, names);
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut found = false;
        let result = self.0.lock().set_attributes(ino.0, |a| found = a.xattrs.remove(name).is_some());
        reply_empty(reply, result.and(if found { Ok(()) } else { Err(libc::ENODATA) }));
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        const KNOWN: i32 =
            libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE;
        if mode & !KNOWN != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let mut disk = self.0.lock();
        let end = offset.saturating_add(length);
        let result = (|| {
            if mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0 {
                disk.zero(ino.0, offset, length)?;
            }
            if mode & libc::FALLOC_FL_KEEP_SIZE == 0 && end > disk.file(ino.0)?.len() {
                disk.set_len(ino.0, end)?;
            }
            Ok(())
        })();
        reply_empty(reply, result);
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
        let found =
            self.0.lock().file(ino.0).and_then(|file| {
                file.seek(offset.max(0) as u64, whence == libc::SEEK_DATA).ok_or(libc::ENXIO)
            });
        match found {
            Ok(position) => reply.offset(position as i64),
            Err(code) => reply.error(errno(code)),
        }
    }
}
