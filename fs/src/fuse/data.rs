//! Requests about a file's data: which thread takes a write, a question for holes, a copy.

use std::sync::Arc;

use fuser::{INodeNo, ReplyWrite, WriteFlags};

use super::edge::Edge;
use super::pool::Late;
use super::reply::written;
use crate::rows::Ino;
use crate::vfs::{Caller, Room, Vfs, WriteMode};

impl Edge {
    /// On the thread that read it, unless it has to wait for room, or for a lock under which the network is waited for.
    pub(super) fn write_data(
        &self,
        ino: Ino,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        reply: ReplyWrite,
    ) {
        // The kernel has made an offset of O_APPEND: it alone knows what its cache appended.
        let from_cache = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let mode = WriteMode {
            append: false,
            kill_privileges: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
            from_cache,
            times_follow: from_cache && self.writeback,
        };
        let set_ids = self.set_ids(ino, mode.kill_privileges);
        let bytes = data.len() as u64;
        let room = self.vfs.room(bytes);
        let waits = room == Room::Waits || (mode.from_cache && room == Room::Stalled);
        if (waits || self.vfs.may_block(ino, None))
            && let Some(parked) = self.pacing.park(data)
        {
            let write =
                move |vfs: &Vfs| written(reply, set_ids.after(vfs.write(ino, offset, &parked.data, mode)));
            return match mode.from_cache {
                true => self.pacing.write(&self.vfs, bytes, write),
                false => self.pacing.run(&self.vfs, bytes, write),
            };
        }
        written(reply, set_ids.after(self.vfs.write(ino, offset, data, mode)));
    }

    /// Runs `seek` when nothing that it asks about is with the kernel alone.
    pub(super) fn data_seek(&self, ino: Ino, seek: impl FnOnce(&Vfs, Late) + Send + 'static) {
        if !self.writeback || !self.writers.any(ino) {
            return self.run(self.vfs.has_base(), seek);
        }
        // The kernel does not write its dirty pages out before it asks, so they would look like a hole, and what they
        // append like the end. Told to drop the pages, it writes them first; other threads take those writes in.
        let (vfs, notifier) = (self.vfs.clone(), self.notifier.clone());
        self.sync.run(move |late| {
            if let Some(Err(error)) = notifier.get().map(|kernel| kernel.inval_inode(INodeNo(ino), 0, 0)) {
                tracing::warn!(%error, "the kernel was asked to write its pages");
            }
            seek(&vfs, late);
        });
    }

    /// A part of a chunk is copied by reading it, perhaps from afar.
    pub(super) fn copy_data(
        &self,
        caller: Caller,
        from: (Ino, u64),
        to: (Ino, u64),
        len: u64,
        reply: ReplyWrite,
    ) {
        let set_ids = self.set_ids(to.0, true);
        // The answer has 32 bits.
        let len = len.min(1 << 30);
        let vfs = Arc::clone(&self.vfs);
        self.network.run(move |late| {
            let copied = late.in_time().and_then(|()| vfs.copy_file_range(&caller, from, to, len));
            written(reply, set_ids.after(copied));
        });
    }
}
