//! Requests about a file's data: which thread takes a write, a question for holes or for how safe it is, a copy.

use std::sync::{Arc, OnceLock};

use fuser::{INodeNo, Notifier, ReplyWrite, ReplyXattr, WriteFlags};

use super::caller::Who;
use super::edge::Edge;
use super::pool::Late;
use super::reply::{reply_xattr, written};
use super::stale::Blocks;
use crate::durability::Durability;
use crate::rows::{Ino, Kind};
use crate::vfs::{DURABILITY_XATTR, Room, Vfs, WriteMode};

impl Edge {
    /// On the thread that read it, unless it has to wait for room, or for a lock under which the network is waited for.
    pub(super) fn write_data(
        &self,
        ino: Ino,
        who: Who,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        reply: ReplyWrite,
    ) {
        // The kernel has made an offset of O_APPEND: it alone knows what its cache appended.
        let from_cache = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let kills = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let mode = WriteMode {
            append: false,
            kill_privileges: kills.then(|| who.towards(&self.vfs, ino).gid),
            from_cache,
            times_follow: from_cache && self.writeback,
        };
        let set_ids = self.set_ids(ino, kills);
        let blocks = Blocks::before(&self.vfs, &self.notifier, ino, from_cache);
        let bytes = data.len() as u64;
        let room = self.vfs.room(bytes);
        let waits = room == Room::Waits || (mode.from_cache && room == Room::Stalled);
        if (waits || self.vfs.may_block(ino, None))
            && let Some(parked) = self.pacing.park(data)
        {
            let write = move |vfs: &Vfs| {
                let done = set_ids.after(vfs.write(ino, offset, &parked.data, mode));
                written(reply, blocks.after(vfs, done));
            };
            return match mode.from_cache {
                true => self.pacing.write(&self.vfs, bytes, write),
                false => self.pacing.run(&self.vfs, bytes, write),
            };
        }
        let done = set_ids.after(self.vfs.write(ino, offset, data, mode));
        written(reply, blocks.after(&self.vfs, done));
    }

    /// Runs `seek` when nothing that it asks about is with the kernel alone.
    pub(super) fn data_seek(&self, ino: Ino, seek: impl FnOnce(&Vfs, Late) + Send + 'static) {
        if !self.writeback || !self.writers.any(ino) {
            return self.run(self.vfs.has_base(), seek);
        }
        // The kernel does not write its dirty pages out before it asks, so they would look like a hole, and what they
        // append like the end.
        let (vfs, notifier) = (self.vfs.clone(), self.notifier.clone());
        self.sync.run(move |late| {
            write_pages(&notifier, ino);
            seek(&vfs, late);
        });
    }

    /// How safe a file or a folder is: a look at many rows. What the kernel alone has is not safe at all, so where the rows are
    /// content, files that are open for writing are looked at with their pages.
    pub(super) fn durability(&self, ino: Ino, size: u32, reply: ReplyXattr) {
        let (vfs, notifier, writers) = (self.vfs.clone(), self.notifier.clone(), self.writers.clone());
        self.sync.run(move |_| {
            let rung = || vfs.getxattr(ino, DURABILITY_XATTR);
            let found = vfs.getattr(ino).and_then(|attr| {
                let first = rung()?;
                let open = match attr.kind {
                    Kind::Dir => writers.all(),
                    _ => writers.any(ino).then_some(ino).into_iter().collect(),
                };
                if open.is_empty() || first == Durability::Staged.to_string() {
                    return Ok(first);
                }
                open.into_iter().for_each(|ino| write_pages(&notifier, ino));
                rung()
            });
            reply_xattr(reply, size, found);
        });
    }

    /// Most is shared, or here. A part of a chunk is copied by reading it, perhaps from afar: then where others wait for that, too.
    pub(super) fn copy_data(&self, who: Who, from: (Ino, u64), to: (Ino, u64), len: u64, reply: ReplyWrite) {
        let (caller, set_ids) = (who.towards(&self.vfs, to.0), self.set_ids(to.0, true));
        // The answer has 32 bits.
        let len = len.min(1 << 30);
        let (vfs, network) = (Arc::clone(&self.vfs), Arc::clone(&self.network));
        self.copies.run(move |_| match vfs.copy_without_waiting(&caller, from, to, len) {
            Ok(None) => network.run(move |late| {
                let copied = late.in_time().and_then(|()| vfs.copy_file_range(&caller, from, to, len));
                written(reply, set_ids.after(copied));
            }),
            Ok(Some(copied)) => written(reply, set_ids.after(Ok(copied))),
            Err(error) => written(reply, set_ids.after(Err::<u64, _>(error))),
        });
    }
}

/// Has the kernel write out what it has of a file: told to drop the pages, it writes them first, and other threads take those
/// writes in.
fn write_pages(notifier: &OnceLock<Notifier>, ino: Ino) {
    if let Some(Err(error)) = notifier.get().map(|kernel| kernel.inval_inode(INodeNo(ino), 0, 0))
        // It may have forgotten the inode.
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "the kernel was asked to write its pages");
    }
}
