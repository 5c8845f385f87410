//! Answers: what a call to the [`Vfs`] returned, as the kernel wants it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use fuser::{
    Errno, Generation, INodeNo, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyWrite, ReplyXattr,
};

use crate::rows::Ino;
use crate::vfs::{Attr, FsError, Vfs};

use super::convert::{attr, errno, kind};
use super::pool::Late;

/// Names and attributes stay valid in the kernel: nobody but the kernel changes them.
pub(super) const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Entries fetched for one readdir reply.
const DIR_PAGE: usize = 256;

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

pub(super) fn read(vfs: &Vfs, late: Late, ino: Ino, offset: u64, size: usize, reply: ReplyData) {
    let mut buffer = vec![0; size];
    match late.in_time().and_then(|()| vfs.read(ino, offset, &mut buffer)) {
        Ok(n) => reply.data(buffer.get(..n).unwrap_or_default()),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn readdirplus(vfs: &Vfs, late: Late, ino: Ino, mut offset: u64, mut reply: ReplyDirectoryPlus) {
    if let Err(error) = late.in_time() {
        return reply.error(errno(&error));
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

pub(super) fn readdir(vfs: &Vfs, late: Late, ino: Ino, mut offset: u64, mut reply: ReplyDirectory) {
    if let Err(error) = late.in_time() {
        return reply.error(errno(&error));
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
