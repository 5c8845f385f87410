//! Between the kernel's types (as fuser has them) and ours.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, INodeNo, RenameFlags, TimeOrNow};

use crate::rows::{Kind, Time};
use crate::vfs::{Attr, FsError, RenameMode, TimeSet};

pub(super) fn errno(error: &FsError) -> Errno {
    if matches!(error, FsError::Rows(_) | FsError::Damaged(_) | FsError::LacksData(_)) {
        tracing::error!(%error, "a request failed");
    }
    Errno::from_i32(error.errno())
}

pub(super) fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::Socket => FileType::Socket,
    }
}

/// A time for a reply. What no `SystemTime` can hold shows as 1970.
fn system_time(time: Time) -> SystemTime {
    let secs = Duration::from_secs(time.secs.unsigned_abs());
    let base = if time.secs < 0 { UNIX_EPOCH.checked_sub(secs) } else { UNIX_EPOCH.checked_add(secs) };
    let nanos = Duration::from_nanos(u64::from(time.nanos));
    base.and_then(|base| base.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

/// A time from a request.
///
/// fuser makes `1970 - (|secs| + nanos)` of negative seconds, where the kernel meant `1970 - |secs| + nanos`; the
/// two parts are still to be had.
pub(super) fn time(time: SystemTime) -> Time {
    let (secs, nanos) = match time.duration_since(UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            (-i64::try_from(before.as_secs()).unwrap_or(i64::MAX), before.subsec_nanos())
        }
    };
    Time { secs, nanos }
}

pub(super) fn time_set(set: TimeOrNow) -> TimeSet {
    match set {
        TimeOrNow::Now => TimeSet::Now,
        TimeOrNow::SpecificTime(at) => TimeSet::To(time(at)),
    }
}

pub(super) fn attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: system_time(attr.btime),
        kind: kind(attr.kind),
        perm: attr.perm,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: 4096,
        flags: 0,
    }
}

/// What to do about the two names; a whiteout belongs to who moves. `None`: flags that exclude each other.
pub(super) fn rename_mode(flags: RenameFlags, owner: (u32, u32)) -> Option<RenameMode> {
    let (keep, leave) = (RenameFlags::RENAME_NOREPLACE, RenameFlags::RENAME_WHITEOUT);
    match flags {
        flags if flags.is_empty() => Some(RenameMode::Replace),
        flags if flags == keep => Some(RenameMode::NoReplace),
        flags if flags == RenameFlags::RENAME_EXCHANGE => Some(RenameMode::Exchange),
        flags if flags.difference(keep) == leave => {
            Some(RenameMode::Whiteout { owner, replace: !flags.contains(keep) })
        }
        _ => None,
    }
}

/// Attributes of nothing: an entry with inode 0 tells the kernel that the name does not exist, for as long as the
/// entry is valid.
pub(super) fn no_attr() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}
