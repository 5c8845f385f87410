//! Answers: what a call to the [`Vfs`] returned, as the kernel wants it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use fuser::{
    Errno, Generation, INodeNo, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyWrite, ReplyXattr,
};

use holdfast_store::{Clock, SystemClock};

use crate::rows::Ino;
use crate::vfs::{Atime, Attr, DirEntry, FsError, Vfs};

use super::convert::{attr, errno, kind};
use super::pool::Late;

/// Names and attributes stay valid in the kernel: nobody but the kernel changes them.
pub(super) const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Entries fetched for one readdir reply.
pub(super) const DIR_PAGE: usize = 256;
/// Attributes that have to be fetched make a listing short after this time: the next call goes on.
const LIST_PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn reply_empty(reply: ReplyEmpty, result: Result<(), FsError>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

/// How many bytes were written or copied.
pub(super) fn written<N: TryInto<u32>>(reply: ReplyWrite, result: Result<N, FsError>) {
    match result {
        Ok(n) => reply.written(n.try_into().unwrap_or(u32::MAX)),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn reply_entry(reply: ReplyEntry, result: Result<Attr, FsError>) {
    match result {
        Ok(found) => reply.entry(&TTL, &attr(&found), Generation(u64::from(found.generation))),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn reply_attr(reply: ReplyAttr, result: Result<Attr, FsError>) {
    match result {
        Ok(found) => reply.attr(&TTL, &attr(&found)),
        Err(error) => reply.error(errno(&error)),
    }
}

/// getxattr and listxattr: the size when asked for, the bytes if they fit.
pub(super) fn reply_xattr(reply: ReplyXattr, size: u32, result: Result<bytes::Bytes, FsError>) {
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

/// listxattr: each name with its NUL.
pub(super) fn reply_names(reply: ReplyXattr, size: u32, result: Result<Vec<bytes::Bytes>, FsError>) {
    let list = result.map(|names| {
        let mut list = Vec::new();
        for name in names {
            list.extend_from_slice(&name);
            list.push(0);
        }
        list.into()
    });
    reply_xattr(reply, size, list);
}

pub(super) fn read(
    vfs: &Vfs,
    late: Late,
    ino: Ino,
    offset: u64,
    size: usize,
    atime: Atime,
    reply: ReplyData,
) {
    let mut buffer = vec![0; size];
    match late.in_time().and_then(|()| vfs.read_noting(ino, offset, &mut buffer, atime)) {
        Ok(n) => reply.data(buffer.get(..n).unwrap_or_default()),
        Err(error) => reply.error(errno(&error)),
    }
}

/// Fills the answer of readdir or readdirplus from the entries after `offset`. `give` says whether the answer is full.
///
/// A name whose inode went meanwhile (`NotFound`) is left out. Any other error ends the answer where it stands, and is itself the
/// answer only if nothing was given before it, for the next call begins with that entry: the kernel keeps a list, so
/// none may look whole that is not. The same where `in_time` ends.
pub(super) fn list(
    mut offset: u64,
    page_after: impl Fn(u64) -> Result<Vec<DirEntry>, FsError>,
    mut give: impl FnMut(&DirEntry) -> Result<bool, FsError>,
    in_time: impl Fn() -> bool,
) -> Result<(), FsError> {
    let mut any = false;
    let ended = |any: bool, error| if any { Ok(()) } else { Err(error) };
    loop {
        let page = match page_after(offset) {
            Ok(page) => page,
            Err(error) => return ended(any, error),
        };
        for entry in &page {
            if any && !in_time() {
                return Ok(());
            }
            offset = entry.cookie;
            match give(entry) {
                Ok(true) => return Ok(()),
                Ok(false) => any = true,
                Err(FsError::NotFound) => {}
                Err(error) => return ended(any, error),
            }
        }
        if page.len() < DIR_PAGE {
            return Ok(());
        }
    }
}

/// Says until when an answer may take in what has to be waited for.
pub(super) fn while_in_time() -> impl Fn() -> bool {
    let clock = SystemClock::new();
    let until = clock.now().saturating_add(LIST_PATIENCE);
    move || clock.now() < until
}

pub(super) fn readdirplus(vfs: &Vfs, late: Late, ino: Ino, offset: u64, mut reply: ReplyDirectoryPlus) {
    let page = |offset| {
        let page = vfs.readdir(ino, offset, DIR_PAGE)?;
        vfs.prepare(&page);
        Ok(page)
    };
    let give = |entry: &DirEntry| {
        // The kernel counts no look-up for "." and "..".
        let found = vfs.getattr(entry.ino)?;
        let generation = Generation(u64::from(found.generation));
        let name = OsStr::from_bytes(&entry.name);
        Ok(reply.add(INodeNo(entry.ino), entry.cookie, name, &TTL, &attr(&found), generation))
    };
    match late.in_time().and_then(|()| list(offset, page, give, while_in_time())) {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn readdir(vfs: &Vfs, late: Late, ino: Ino, offset: u64, mut reply: ReplyDirectory) {
    let page = |offset| vfs.readdir(ino, offset, DIR_PAGE);
    let give = |entry: &DirEntry| {
        let name = OsStr::from_bytes(&entry.name);
        Ok(reply.add(INodeNo(entry.ino), entry.cookie, kind(entry.kind), name))
    };
    match late.in_time().and_then(|()| list(offset, page, give, || true)) {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::Cell;

    use super::*;
    use crate::rows::Kind;

    /// Some pages of names, of which `odd` cannot be given; what a reader that calls until the end gets.
    fn read(odd: u64, error: fn() -> FsError, room: usize) -> (Vec<u64>, Option<FsError>) {
        let count = 3 * DIR_PAGE as u64 + 7;
        let page = |after: u64| {
            let entry =
                |cookie| DirEntry { cookie, ino: cookie, kind: Kind::File, name: bytes::Bytes::new() };
            Ok((after + 1..=count).take(DIR_PAGE).map(entry).collect())
        };
        let mut all = Vec::new();
        loop {
            let (from, before) = (all.last().copied().unwrap_or(0), all.len());
            let give = |entry: &DirEntry| {
                if entry.cookie == odd {
                    return Err(error());
                }
                let full = all.len() == before + room;
                if !full {
                    all.push(entry.cookie);
                }
                Ok(full)
            };
            match list(from, page, give, || true) {
                Ok(()) if all.len() == before => return (all, None),
                Ok(()) => {}
                Err(error) => return (all, Some(error)),
            }
        }
    }

    #[test]
    fn a_list_that_is_not_whole_never_looks_whole() {
        let whole: Vec<u64> = (1..=3 * DIR_PAGE as u64 + 7).collect();
        for room in [1, 100, 10_000] {
            assert_eq!(read(0, || FsError::NotFound, room).0, whole);
            for odd in [1, 2, 300, 775] {
                let (given, error) = read(odd, || FsError::NotFound, room);
                assert!(error.is_none());
                assert_eq!(given, whole.iter().copied().filter(|at| *at != odd).collect::<Vec<_>>());
                for failure in [|| FsError::TimedOut, || FsError::Damaged(String::new())] {
                    let (given, error) = read(odd, failure, room);
                    assert!(
                        given.iter().copied().eq(1..odd),
                        "all that stands before it, and nothing behind"
                    );
                    assert_eq!(error.map(|error| error.errno()), Some(failure().errno()));
                }
            }
        }
    }

    #[test]
    fn an_answer_ends_in_time_and_is_never_empty_for_that() {
        let page = |after: u64| {
            let entry =
                |cookie| DirEntry { cookie, ino: cookie, kind: Kind::File, name: bytes::Bytes::new() };
            Ok((after + 1..=20).map(entry).collect())
        };
        let given = Cell::new(0);
        let give = |_: &DirEntry| {
            given.set(given.get() + 1);
            Ok(false)
        };
        list(0, page, give, || false).unwrap();
        assert_eq!(given.get(), 1);
    }
}
