//! A FUSE file system that only remembers: no disk, no encryption, no order, nothing after its end. What it costs is what
//! the way through the kernel costs, so it is the limit for every file system of this kind. It asks the kernel for what Holdfast asks
//! for, except ACLs (and does not follow its callers to their CPU).
//!
//! Does what the benchmark's programs need, and no more: it is a measure, not a file system.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Parser;
use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request,
    SessionACL, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;

const TTL: Duration = Duration::from_secs(60);
const ROOT: u64 = 1;
const IO_BYTES_MAX: u32 = 1 << 20;

/// Mounts a file system that is held in memory and forgotten at its end.
#[derive(Parser)]
struct Args {
    mountpoint: PathBuf,
}

enum Content {
    File(Vec<u8>),
    Link(PathBuf),
    Folder(BTreeMap<OsString, u64>),
}

struct Node {
    attr: FileAttr,
    content: Content,
}

struct Tree {
    nodes: HashMap<u64, Node>,
    next: u64,
}

struct Null(Mutex<Tree>);

type Answer<T> = Result<T, Errno>;

fn fresh(ino: u64, kind: FileType, mode: u32, req: &Request) -> FileAttr {
    let now = SystemTime::now();
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: now,
        mtime: now,
        ctime: now,
        crtime: now,
        kind,
        perm: (mode & 0o7777) as u16,
        nlink: if kind == FileType::Directory { 2 } else { 1 },
        uid: req.uid(),
        gid: req.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Tree {
    fn node(&mut self, ino: u64) -> Answer<&mut Node> {
        self.nodes.get_mut(&ino).ok_or(Errno::ENOENT)
    }

    fn names(&mut self, ino: u64) -> Answer<&mut BTreeMap<OsString, u64>> {
        match &mut self.node(ino)?.content {
            Content::Folder(names) => Ok(names),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn bytes(&mut self, ino: u64) -> Answer<&mut Vec<u8>> {
        match &mut self.node(ino)?.content {
            Content::File(bytes) => Ok(bytes),
            _ => Err(Errno::EINVAL),
        }
    }

    fn lookup(&mut self, parent: u64, name: &OsStr) -> Answer<FileAttr> {
        let ino = *self.names(parent)?.get(name).ok_or(Errno::ENOENT)?;
        Ok(self.node(ino)?.attr)
    }

    fn make(
        &mut self,
        req: &Request,
        parent: u64,
        name: &OsStr,
        mode: u32,
        content: Content,
    ) -> Answer<FileAttr> {
        if self.names(parent)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let kind = match &content {
            Content::File(_) => FileType::RegularFile,
            Content::Link(_) => FileType::Symlink,
            Content::Folder(_) => FileType::Directory,
        };
        self.next += 1;
        let ino = self.next;
        let mut attr = fresh(ino, kind, mode, req);
        if let Content::Link(target) = &content {
            attr.size = target.as_os_str().len() as u64;
        }
        self.nodes.insert(ino, Node { attr, content });
        self.names(parent)?.insert(name.to_owned(), ino);
        Ok(attr)
    }

    /// A name goes; its file stays until the kernel forgets it.
    fn remove(&mut self, parent: u64, name: &OsStr, folder: bool) -> Answer<()> {
        let ino = *self.names(parent)?.get(name).ok_or(Errno::ENOENT)?;
        if folder && !self.names(ino)?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.names(parent)?.remove(name);
        let node = self.node(ino)?;
        node.attr.nlink = if folder { 0 } else { node.attr.nlink.saturating_sub(1) };
        Ok(())
    }

    fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Answer<()> {
        let ino = *self.names(from.0)?.get(from.1).ok_or(Errno::ENOENT)?;
        if let Some(old) = self.names(to.0)?.insert(to.1.to_owned(), ino)
            && old != ino
        {
            let node = self.node(old)?;
            node.attr.nlink = node.attr.nlink.saturating_sub(1);
        }
        self.names(from.0)?.remove(from.1);
        Ok(())
    }

    fn list(&mut self, ino: u64, offset: u64) -> Answer<Vec<(u64, OsString, FileAttr)>> {
        let names: Vec<(OsString, u64)> = self.names(ino)?.iter().map(|(n, i)| (n.clone(), *i)).collect();
        let mut out = Vec::new();
        for (at, (name, child)) in names.into_iter().enumerate().skip(offset as usize) {
            out.push((at as u64 + 1, name, self.node(child)?.attr));
        }
        Ok(out)
    }
}

fn entry(reply: ReplyEntry, answer: Answer<FileAttr>) {
    match answer {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn empty(reply: ReplyEmpty, answer: Answer<()>) {
    match answer {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn time(given: TimeOrNow) -> SystemTime {
    match given {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

impl Filesystem for Null {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_NO_OPENDIR_SUPPORT
            | InitFlags::FUSE_WRITEBACK_CACHE;
        for flag in wanted.iter() {
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_write(IO_BYTES_MAX);
        if let Err(most) = config.set_max_readahead(IO_BYTES_MAX) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(256);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let answer = self.0.lock().lookup(parent.0, name);
        entry(reply, answer);
    }

    fn forget(&self, _req: &Request, ino: INodeNo, _nlookup: u64) {
        let mut tree = self.0.lock();
        if tree.node(ino.0).is_ok_and(|node| node.attr.nlink == 0) {
            tree.nodes.remove(&ino.0);
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.lock().node(ino.0).map(|node| node.attr) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(error),
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
        ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut tree = self.0.lock();
        let Ok(node) = tree.node(ino.0) else { return reply.error(Errno::ENOENT) };
        if let (Some(size), Content::File(bytes)) = (size, &mut node.content) {
            bytes.resize(size as usize, 0);
            node.attr.size = size;
        }
        let attr = &mut node.attr;
        attr.perm = mode.map_or(attr.perm, |mode| (mode & 0o7777) as u16);
        attr.uid = uid.unwrap_or(attr.uid);
        attr.gid = gid.unwrap_or(attr.gid);
        attr.atime = atime.map_or(attr.atime, time);
        attr.mtime = mtime.map_or(attr.mtime, time);
        attr.ctime = ctime.unwrap_or_else(SystemTime::now);
        reply.attr(&TTL, attr);
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.0.lock().node(ino.0).map(|node| &node.content) {
            Ok(Content::Link(target)) => reply.data(target.as_os_str().as_encoded_bytes()),
            _ => reply.error(Errno::EINVAL),
        }
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let answer = self.0.lock().make(req, parent.0, name, mode & !umask, Content::Folder(BTreeMap::new()));
        entry(reply, answer);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let answer = self.0.lock().make(req, parent.0, name, 0o777, Content::Link(target.to_owned()));
        entry(reply, answer);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let answer = self.0.lock().remove(parent.0, name, false);
        empty(reply, answer);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let answer = self.0.lock().remove(parent.0, name, true);
        empty(reply, answer);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let answer = self.0.lock().rename((parent.0, name), (newparent.0, newname));
        empty(reply, answer);
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let mut tree = self.0.lock();
        let linked =
            tree.names(newparent.0).map(|names| names.insert(newname.to_owned(), ino.0)).and_then(|_| {
                let node = tree.node(ino.0)?;
                node.attr.nlink += 1;
                Ok(node.attr)
            });
        entry(reply, linked);
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let mut tree = self.0.lock();
        if flags.0 & libc::O_TRUNC != 0
            && let Ok(node) = tree.node(ino.0)
            && let Content::File(bytes) = &mut node.content
        {
            bytes.clear();
            node.attr.size = 0;
        }
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
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
        match self.0.lock().make(req, parent.0, name, mode & !umask, Content::File(Vec::new())) {
            Ok(attr) => {
                reply.created(&TTL, &attr, Generation(0), FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE)
            }
            Err(error) => reply.error(error),
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
        match self.0.lock().bytes(ino.0) {
            Ok(bytes) => {
                let from = (offset as usize).min(bytes.len());
                reply.data(&bytes[from..(from + size as usize).min(bytes.len())]);
            }
            Err(error) => reply.error(error),
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
        let mut tree = self.0.lock();
        let Ok(bytes) = tree.bytes(ino.0) else { return reply.error(Errno::EINVAL) };
        let (from, end) = (offset as usize, offset as usize + data.len());
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[from..end].copy_from_slice(data);
        let size = bytes.len() as u64;
        if let Ok(node) = tree.node(ino.0) {
            node.attr.size = size;
            node.attr.blocks = size.div_ceil(512);
        }
        reply.written(data.len() as u32);
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.0.lock().list(ino.0, offset) {
            Ok(list) => {
                for (next, name, attr) in list {
                    if reply.add(attr.ino, next, attr.kind, &name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        match self.0.lock().list(ino.0, offset) {
            Ok(list) => {
                for (next, name, attr) in list {
                    if reply.add(attr.ino, next, &name, &TTL, &attr, Generation(0)) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let now = SystemTime::now();
    let root = FileAttr {
        ino: INodeNo(ROOT),
        size: 4096,
        blocks: 8,
        atime: now,
        mtime: now,
        ctime: now,
        crtime: now,
        kind: FileType::Directory,
        perm: 0o755,
        nlink: 2,
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    };
    let nodes = HashMap::from([(ROOT, Node { attr: root, content: Content::Folder(BTreeMap::new()) })]);
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("null".into()),
        MountOption::Subtype("null".into()),
        MountOption::DefaultPermissions,
    ];
    config.acl = SessionACL::All;
    config.n_threads = Some(std::thread::available_parallelism().map_or(2, |n| n.get()).clamp(2, 16));
    config.clone_fd = true;
    let session =
        fuser::spawn_mount(Null(Mutex::new(Tree { nodes, next: ROOT })), &args.mountpoint, &config)?;
    session.join()?;
    Ok(())
}
