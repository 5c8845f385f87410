//! copy_file_range: shares payloads and chunks instead of copying bytes.

use std::ops::Range;

use crate::rows::{ChunkRow, ExtentRow, ExtentSource, Ino, InodeRow, inode_flags};

use super::attr::without_privileges;
use super::data::{Atime, PAYLOAD_BYTES_MAX, WriteMode, require_data, require_file};
use super::error::FsError;
use super::extents::{self, ExtentMap};
use super::node::{State, lock_many};
use super::remove::REMOVE_ROWS_MAX;
use super::{Caller, FILE_BYTES_MAX, Synced, Vfs};

/// Parts that one call shares; a longer range is copied short, and the caller asks again.
const PARTS_MAX: usize = REMOVE_ROWS_MAX / 2;

/// A run of the source, in bytes of the source.
enum Part {
    Payload {
        range: Range<u64>,
        source: ExtentSource,
    },
    Hole {
        range: Range<u64>,
    },
    /// A whole chunk (or the source's last one), shared as it is.
    Chunk {
        range: Range<u64>,
        to: u64,
        chunk: ChunkRow,
    },
}

impl Vfs {
    /// Makes `len` bytes at `to` those at `from`; returns how many were done, 0 only at the end of the source.
    pub fn copy_file_range(
        &self,
        caller: &Caller,
        from: (Ino, u64),
        to: (Ino, u64),
        len: u64,
    ) -> Result<u64, FsError> {
        self.copy_range(caller, from, to, len, true)?.ok_or(FsError::TimedOut)
    }

    /// The same, but gives up (`None`) where an answer could have to wait for the network.
    pub fn copy_without_waiting(
        &self,
        caller: &Caller,
        from: (Ino, u64),
        to: (Ino, u64),
        len: u64,
    ) -> Result<Option<u64>, FsError> {
        if self.rows.has_base() {
            return Ok(None);
        }
        self.copy_range(caller, from, to, len, false)
    }

    fn copy_range(
        &self,
        caller: &Caller,
        from: (Ino, u64),
        to: (Ino, u64),
        len: u64,
        wait: bool,
    ) -> Result<Option<u64>, FsError> {
        self.require_writable()?;
        let ((from_ino, from_off), (to_ino, to_off)) = (from, to);
        if to_off >= FILE_BYTES_MAX && len > 0 {
            return Err(FsError::TooBig);
        }
        let len = len.min(FILE_BYTES_MAX.saturating_sub(to_off));
        let apart = from_off.saturating_add(len) <= to_off || to_off.saturating_add(len) <= from_off;
        if from_ino == to_ino && !apart {
            return Err(FsError::Invalid);
        }
        if let Some(done) = self.share(caller, from, to, len)? {
            return self.settle(Some(done), Synced::All);
        }
        // What stands there cannot be shared (a part of a chunk): read and write a piece of it.
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(PAYLOAD_BYTES_MAX);
        let mut buf = vec![0; len];
        let read = match wait {
            true => self.read(from_ino, from_off, &mut buf)?,
            false => match self.read_without_waiting(from_ino, from_off, &mut buf, Atime::Moves)? {
                Some(read) => read,
                None => return Ok(None),
            },
        };
        let data = buf.get(..read).unwrap_or_default();
        if data.is_empty() {
            return Ok(Some(0));
        }
        let mode =
            WriteMode { kill_privileges: (!caller.privileged).then_some(caller.gid), ..WriteMode::default() };
        let written = self.write(to_ino, to_off, data, mode)? as u64;
        self.settle(Some(written), Synced::All)
    }

    /// Shares as much as can be shared from the beginning; `None` if that is nothing.
    fn share(
        &self,
        caller: &Caller,
        from: (Ino, u64),
        to: (Ino, u64),
        len: u64,
    ) -> Result<Option<u64>, FsError> {
        let ((from_ino, from_off), (to_ino, to_off)) = (from, to);
        let (source, target) = (self.node(from_ino)?, self.node(to_ino)?);
        let mut locked = lock_many(&[&source, &target]);
        for ino in [from_ino, to_ino] {
            let state = locked.get(ino)?;
            require_file(state)?;
            require_data(ino, state)?;
            if state.dead {
                return Err(FsError::NotFound);
            }
            self.load_extents(ino, state)?;
        }
        self.finish_trim(to_ino, locked.get(to_ino)?)?;
        let (to_log2, to_size) = {
            let row = &locked.get(to_ino)?.row;
            (row.chunk_log2, row.size)
        };
        let state = locked.get(from_ino)?;
        let len = len.min(state.row.size.saturating_sub(from_off));
        if len == 0 {
            return Ok(Some(0));
        }
        let range = from_off..from_off + len;
        let parts = self.parts(from_ino, state, range, to_off, to_log2, to_size)?;
        let done: u64 = parts.iter().map(|part| part.range().end - part.range().start).sum();
        if done == 0 {
            return Ok(None);
        }
        let state = locked.get(to_ino)?;
        let end = to_off + done;
        let covered = self.chunk_bytes_in_gaps(to_ino, state, to_off..end)?;
        let now = self.now();
        let mut row = InodeRow { mtime: now, ctime: now, ..state.row.clone() };
        if !caller.privileged {
            row.perm = without_privileges(row.perm, caller.gid == row.gid);
        }
        row.size = row.size.max(end);
        let map = state.extents.get_or_insert_default();
        let edits = extents::cut(map, to_off..end, |_| true);
        row.allocated = row.allocated.saturating_sub(edits.data_bytes).saturating_sub(covered);
        let hide = edits.any || row.has_chunks();
        let mut txn = self.rows.begin();
        edits.write(&mut txn, to_ino);
        let mut new = Vec::new();
        for part in parts {
            let (at, len) = (part.range().start - from_off + to_off, part.range().end - part.range().start);
            match part {
                Part::Payload { source, .. } => {
                    if let ExtentSource::Payload { payload, .. } = source {
                        txn.retain(payload);
                    }
                    txn.put_shared_extent(to_ino, at, len, source);
                    row.allocated += len;
                    new.push((at, len, source));
                }
                Part::Hole { .. } if hide => {
                    txn.put_shared_extent(to_ino, at, len, ExtentSource::Zero);
                    new.push((at, len, ExtentSource::Zero));
                }
                Part::Hole { .. } => {}
                Part::Chunk { to, chunk, .. } => {
                    row.flags |= inode_flags::HAS_CHUNKS;
                    row.allocated += u64::from(chunk.plain_len);
                    txn.put_shared_chunk(to_ino, to, &chunk);
                }
            }
        }
        txn.put_inode(to_ino, &row);
        let lsn = txn.commit()?;
        row.lsn = lsn;
        edits.apply(map);
        map.extend(new.into_iter().map(|(at, len, source)| (at, ExtentRow { len, lsn, source })));
        state.chunks.get_mut().clear();
        state.row = row;
        state.atime_dirty = false;
        self.nodes.recount(state);
        Ok(Some(done))
    }

    /// The source's range in parts, up to the first that cannot be shared.
    fn parts(
        &self,
        ino: Ino,
        state: &State,
        range: Range<u64>,
        to_off: u64,
        to_log2: u8,
        to_size: u64,
    ) -> Result<Vec<Part>, FsError> {
        let empty = ExtentMap::new();
        let map = state.extents.as_ref().unwrap_or(&empty);
        let mut parts = Vec::new();
        let mut pos = range.start;
        while pos < range.end && parts.len() < PARTS_MAX {
            let extent = extents::overlapping(map, pos..range.end).next().filter(|(off, _)| *off <= pos);
            if let Some((off, row)) = extent {
                let end = off.saturating_add(row.len).min(range.end);
                let source = row.without_front(pos - off).source;
                parts.push(match source {
                    ExtentSource::Zero => Part::Hole { range: pos..end },
                    ExtentSource::Payload { .. } => Part::Payload { range: pos..end, source },
                });
                pos = end;
                continue;
            }
            let (is_data, end) = self.run_at(ino, state, pos, state.row.size)?;
            let end = end.min(range.end);
            if !is_data {
                parts.push(Part::Hole { range: pos..end });
                pos = end;
                continue;
            }
            // Chunk data: sharable where whole chunks of both files meet.
            let chunk_bytes = state.row.chunk_bytes();
            let n = pos / chunk_bytes;
            let chunk_end = ((n + 1) * chunk_bytes).min(range.end);
            let at = pos - range.start + to_off;
            let to_end = chunk_end - range.start + to_off;
            let whole = pos.is_multiple_of(chunk_bytes)
                && at.is_multiple_of(chunk_bytes)
                && to_log2 == state.row.chunk_log2
                && extents::overlapping(map, pos..chunk_end).next().is_none()
                // A chunk that ends before its bytes do stands for more than is copied, unless nothing follows.
                && (chunk_end.is_multiple_of(chunk_bytes) || (chunk_end == state.row.size && to_size <= to_end));
            let chunk = if whole { self.rows.live().chunk(ino, n)? } else { None };
            let Some(chunk) = chunk.filter(|chunk| u64::from(chunk.plain_len) <= chunk_end - pos) else {
                break;
            };
            parts.push(Part::Chunk { range: pos..chunk_end, to: at / chunk_bytes, chunk });
            pos = chunk_end;
        }
        Ok(parts)
    }
}

impl Part {
    fn range(&self) -> &Range<u64> {
        match self {
            Self::Payload { range, .. } | Self::Hole { range } | Self::Chunk { range, .. } => range,
        }
    }
}
