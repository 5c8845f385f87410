//! `.snapshots` at the root: the commits, answered from their own trees.
//!
//! Owns: the inode numbers of snapshots. A number says which commit and which inode in it, so that nothing has to be remembered for the kernel:
//!
//!     1 (1 bit) | commit's sequence (23 bits) | inode number (40 bits)             sequence 0, inode 0: the folder `.snapshots` itself
//!
//! Promises: nothing in it changes, so whoever writes gets EROFS; every answer may wait for the network and is given on a thread that may. Refuses: a commit
//! or an inode whose number needs more bits (EOVERFLOW).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    Errno, FileHandle, FopenFlags, Generation, INodeNo, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEntry, ReplyLseek, ReplyOpen, ReplyXattr,
};

use super::convert::{attr, errno, kind};
use super::pool::{Late, Pool};
use super::reply::{DIR_PAGE, list, reply_names, reply_xattr, while_in_time};
use crate::rows::{Ino, Kind, ROOT_INO, Time};
use crate::snapshots::CommitName;
use crate::vfs::{Attr, Caller, DirEntry, FsError, SeekTo, Vfs};

/// The folder's name in the drive's root. It is not listed there, so that a backup does not copy the past.
pub(super) const NAME: &[u8] = b".snapshots";
const SNAPSHOT_BIT: u64 = 1 << 63;
const INO_BITS: u32 = 40;
const INO_MASK: u64 = (1 << INO_BITS) - 1;
const SEQUENCE_MAX: u64 = (1 << 23) - 1;
/// The folder itself.
pub(super) const TOP: Ino = SNAPSHOT_BIT;
/// How long the kernel may keep what is in the folder: commits come and go.
const TOP_TTL: Duration = Duration::from_secs(1);
/// How long what is in a commit; it never changes, but its commit may be dropped.
const TTL: Duration = Duration::from_secs(60);
/// Cookies of `.` and `..`; those of commits follow.
const COOKIE_DOTDOT: u64 = 2;

pub(super) struct Frozen {
    vfs: Arc<Vfs>,
    pool: Arc<Pool>,
}

/// Is it one of ours?
pub(super) fn is_frozen(ino: u64) -> bool {
    ino & SNAPSHOT_BIT != 0
}

fn split(ino: u64) -> (u64, Ino) {
    ((ino & !SNAPSHOT_BIT) >> INO_BITS, ino & INO_MASK)
}

fn join(sequence: u64, ino: Ino) -> Result<Ino, FsError> {
    if sequence > SEQUENCE_MAX || ino > INO_MASK {
        return Err(FsError::Overflow);
    }
    Ok(SNAPSHOT_BIT | sequence << INO_BITS | ino)
}

/// One commit's tree, its inodes under our numbers.
struct Tree {
    sequence: u64,
    vfs: Arc<Vfs>,
}

impl Tree {
    fn open(live: &Vfs, sequence: u64) -> Result<Self, FsError> {
        let source = live.snapshots().ok_or(FsError::NotFound)?;
        Ok(Self { sequence, vfs: source.open(sequence)? })
    }

    fn attr(&self, ino: Ino) -> Result<Attr, FsError> {
        self.ours(self.vfs.getattr(ino)?)
    }

    fn ours(&self, found: Attr) -> Result<Attr, FsError> {
        Ok(Attr { ino: join(self.sequence, found.ino)?, ..found })
    }

    fn readdir(&self, ino: Ino, cookie: u64) -> Result<Vec<DirEntry>, FsError> {
        let page = self.vfs.readdir(ino, cookie, DIR_PAGE)?;
        page.into_iter()
            .map(|entry| {
                let above = ino == ROOT_INO && entry.name.as_ref() == b"..";
                Ok(DirEntry { ino: if above { TOP } else { join(self.sequence, entry.ino)? }, ..entry })
            })
            .collect()
    }
}

fn commits(live: &Vfs) -> Result<Vec<(String, CommitName)>, FsError> {
    live.snapshots().ok_or(FsError::NotFound)?.list()
}

fn top_attr(live: &Vfs) -> Result<Attr, FsError> {
    Ok(top(live.getattr(ROOT_INO)?, &commits(live)?))
}

/// The folder changes when commits come or go. The kernel keeps its list for as long as the time of the change is the same: that of the
/// newest commit, and in the place of nanoseconds what tells one list from another.
fn top(root: Attr, commits: &[(String, CommitName)]) -> Attr {
    let mut hash = blake3::Hasher::new();
    commits.iter().for_each(|(_, commit)| _ = hash.update(&commit.sequence.to_le_bytes()));
    let [a, b, c, d, ..] = *hash.finalize().as_bytes();
    let newest = commits.last().and_then(|(_, commit)| i64::try_from(commit.time).ok());
    let nanos = u32::from_le_bytes([a, b, c, d]) % 1_000_000_000;
    let changed = Time { secs: newest.unwrap_or(root.btime.secs), nanos };
    let nlink = u32::try_from(commits.len()).unwrap_or(u32::MAX).saturating_add(2);
    Attr { ino: TOP, perm: 0o555, nlink, generation: 0, mtime: changed, ctime: changed, ..root }
}

fn attr_of(live: &Vfs, ino: u64) -> Result<Attr, FsError> {
    if ino == TOP {
        return top_attr(live);
    }
    let (sequence, ino) = split(ino);
    Tree::open(live, sequence)?.attr(ino)
}

fn entries_of(live: &Vfs, ino: u64, cookie: u64) -> Result<Vec<DirEntry>, FsError> {
    if ino != TOP {
        let (sequence, ino) = split(ino);
        return Tree::open(live, sequence)?.readdir(ino, cookie);
    }
    let list = commits(live)?;
    let dots = [(1, TOP, "."), (COOKIE_DOTDOT, ROOT_INO, "..")];
    let dots = dots.into_iter().map(|(cookie, ino, name)| Ok((cookie, ino, name.to_owned())));
    let commits = list.into_iter().map(|(label, commit)| {
        Ok((COOKIE_DOTDOT + commit.sequence, join(commit.sequence, ROOT_INO)?, label))
    });
    let after = dots.chain(commits).filter(|entry| entry.as_ref().is_ok_and(|(at, ..)| *at > cookie));
    after
        .take(DIR_PAGE)
        .map(|entry| {
            entry.map(|(cookie, ino, name)| DirEntry { cookie, ino, kind: Kind::Dir, name: name.into() })
        })
        .collect()
}

impl Frozen {
    pub(super) fn new(vfs: Arc<Vfs>, pool: Arc<Pool>) -> Self {
        Self { vfs, pool }
    }

    fn serve(&self, f: impl FnOnce(&Vfs, Result<(), FsError>) + Send + 'static) {
        let vfs = self.vfs.clone();
        self.pool.run(move |late: Late| f(&vfs, late.in_time()));
    }

    /// `.snapshots` itself, looked up in the root.
    pub(super) fn lookup_top(&self, reply: ReplyEntry) {
        self.serve(move |live, late| entry(reply, late.and_then(|()| top_attr(live)), &TOP_TTL));
    }

    pub(super) fn lookup(&self, parent: u64, name: &OsStr, reply: ReplyEntry) {
        let name = name.to_owned();
        self.serve(move |live, late| {
            if parent != TOP {
                let (sequence, parent) = split(parent);
                let found = late.and_then(|()| Tree::open(live, sequence)).and_then(|tree| {
                    let found = tree.vfs.lookup(parent, name.as_bytes())?;
                    tree.ours(found)
                });
                return entry(reply, found, &TTL);
            }
            let found = late.and_then(|()| {
                let source = live.snapshots().ok_or(FsError::NotFound)?;
                let sequence = source.resolve(name.to_str().ok_or(FsError::NotFound)?)?;
                Tree::open(live, sequence)?.attr(ROOT_INO)
            });
            entry(reply, found, &TOP_TTL);
        });
    }

    pub(super) fn getattr(&self, ino: u64, reply: ReplyAttr) {
        self.serve(move |live, late| match late.and_then(|()| attr_of(live, ino)) {
            Ok(found) => reply.attr(if ino == TOP { &TOP_TTL } else { &TTL }, &attr(&found)),
            Err(error) => reply.error(errno(&error)),
        });
    }

    /// Runs `f` with the tree and the inode in it.
    fn within<T: 'static>(
        &self,
        ino: u64,
        work: impl FnOnce(&Vfs, Ino) -> Result<T, FsError> + Send + 'static,
        answer: impl FnOnce(Result<T, FsError>) + Send + 'static,
    ) {
        self.serve(move |live, late| {
            let (sequence, inner) = split(ino);
            let done =
                late.and_then(|()| if ino == TOP { Err(FsError::IsDir) } else { Tree::open(live, sequence) });
            answer(done.and_then(|tree| work(&tree.vfs, inner)));
        });
    }

    pub(super) fn readlink(&self, ino: u64, reply: ReplyData) {
        self.within(
            ino,
            |vfs, ino| vfs.readlink(ino),
            move |target| match target {
                Ok(target) => reply.data(&target),
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    pub(super) fn open(&self, flags: OpenFlags, reply: ReplyOpen) {
        if flags.0 & libc::O_ACCMODE != libc::O_RDONLY || flags.0 & libc::O_TRUNC != 0 {
            return reply.error(Errno::EROFS);
        }
        // Nothing changes, and nothing goes while it is open: what the kernel keeps stays true.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    pub(super) fn read(&self, ino: u64, offset: u64, size: usize, reply: ReplyData) {
        let read = move |vfs: &Vfs, ino| {
            let mut buffer = vec![0; size];
            let n = vfs.read(ino, offset, &mut buffer)?;
            buffer.truncate(n);
            Ok(buffer)
        };
        self.within(ino, read, move |read| match read {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(errno(&error)),
        });
    }

    pub(super) fn lseek(&self, ino: u64, offset: i64, whence: i32, reply: ReplyLseek) {
        let to = match whence {
            libc::SEEK_DATA => SeekTo::Data,
            libc::SEEK_HOLE => SeekTo::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(from) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        self.within(
            ino,
            move |vfs, ino| vfs.seek(ino, from, to),
            move |found| match found {
                Ok(at) => reply.offset(i64::try_from(at).unwrap_or(i64::MAX)),
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    pub(super) fn readdir(&self, ino: u64, offset: u64, mut reply: ReplyDirectory) {
        self.serve(move |live, late| {
            let page = |offset| entries_of(live, ino, offset);
            let give = |entry: &DirEntry| {
                let name = OsStr::from_bytes(&entry.name);
                Ok(reply.add(INodeNo(entry.ino), entry.cookie, kind(entry.kind), name))
            };
            match late.and_then(|()| list(offset, page, give, || true)) {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    pub(super) fn readdirplus(&self, ino: u64, offset: u64, mut reply: ReplyDirectoryPlus) {
        self.serve(move |live, late| {
            let ttl = if ino == TOP { &TOP_TTL } else { &TTL };
            let page = |offset| entries_of(live, ino, offset);
            let give = |entry: &DirEntry| {
                // A commit that was dropped meanwhile is not found.
                let found = match is_frozen(entry.ino) {
                    true => attr_of(live, entry.ino)?,
                    false => live.getattr(entry.ino)?,
                };
                let generation = Generation(u64::from(found.generation));
                let name = OsStr::from_bytes(&entry.name);
                Ok(reply.add(INodeNo(entry.ino), entry.cookie, name, ttl, &attr(&found), generation))
            };
            match late.and_then(|()| list(offset, page, give, while_in_time())) {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    pub(super) fn getxattr(&self, ino: u64, name: &OsStr, size: u32, reply: ReplyXattr) {
        if ino == TOP {
            return reply.error(Errno::ENODATA);
        }
        let name = name.to_owned();
        self.within(
            ino,
            move |vfs, ino| vfs.getxattr(ino, name.as_bytes()),
            move |found| {
                reply_xattr(reply, size, found);
            },
        );
    }

    pub(super) fn listxattr(&self, caller: Caller, ino: u64, size: u32, reply: ReplyXattr) {
        if ino == TOP {
            return reply_names(reply, size, Ok(Vec::new()));
        }
        self.within(
            ino,
            move |vfs, ino| vfs.listxattr(&caller, ino),
            move |names| reply_names(reply, size, names),
        );
    }
}

fn entry(reply: ReplyEntry, found: Result<Attr, FsError>, ttl: &Duration) {
    match found {
        Ok(found) => reply.entry(ttl, &attr(&found), Generation(u64::from(found.generation))),
        Err(error) => reply.error(errno(&error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_say_commit_and_inode_and_refuse_what_does_not_fit() {
        let ino = join(7, 42).unwrap();
        assert!(is_frozen(ino) && !is_frozen(42));
        assert_eq!(split(ino), (7, 42));
        assert_eq!(split(join(SEQUENCE_MAX, INO_MASK).unwrap()), (SEQUENCE_MAX, INO_MASK));
        assert_eq!(split(TOP), (0, 0));
        assert!(join(SEQUENCE_MAX + 1, 1).is_err() && join(1, INO_MASK + 1).is_err());
    }

    #[test]
    fn the_folder_is_another_when_commits_come_or_go() {
        let at = |secs| Time { secs, nanos: 1 };
        let root = Attr {
            ino: ROOT_INO,
            kind: Kind::Dir,
            perm: 0o755,
            nlink: 9,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 4096,
            blocks: 8,
            atime: at(7),
            mtime: at(7),
            ctime: at(7),
            btime: at(5),
            generation: 0,
        };
        let lists = [vec![], vec![1], vec![1, 2], vec![2], vec![1, 2, 3], vec![1, 3], vec![3]];
        let mut times = Vec::new();
        for list in &lists {
            // All in one second.
            let commits: Vec<_> = list
                .iter()
                .map(|sequence| (String::new(), CommitName { sequence: *sequence, time: 1_700_000_000 }))
                .collect();
            let attr = top(root.clone(), &commits);
            assert_eq!(attr, top(root.clone(), &commits), "and the same while they do not");
            assert_eq!((attr.ino, attr.perm, attr.nlink as usize), (TOP, 0o555, 2 + list.len()));
            assert!(attr.mtime.nanos < 1_000_000_000 && attr.ctime == attr.mtime);
            times.push(attr.mtime);
        }
        times.sort();
        times.dedup();
        assert_eq!(times.len(), lists.len());
    }
}
