//! Room and holes inside a file: fallocate, SEEK_DATA, SEEK_HOLE.

use crate::rows::{ExtentSource, Ino, InodeRow, Kind};

use super::attr::without_privileges;
use super::data::{require_data, require_file};
use super::error::FsError;
use super::extents::{self, ExtentMap};
use super::node::State;
use super::{Caller, FILE_BYTES_MAX, Synced, Vfs};

/// What fallocate is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllocateMode {
    /// Make sure that there is room; grow the file unless `keep_size`.
    Reserve { keep_size: bool },
    /// Make a hole; the size stays.
    Punch,
    /// Make zeros; grow the file unless `keep_size`.
    Zero { keep_size: bool },
}

/// What lseek looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekTo {
    Data,
    Hole,
}

impl Vfs {
    pub fn fallocate(
        &self,
        caller: &Caller,
        ino: Ino,
        off: u64,
        len: u64,
        mode: AllocateMode,
    ) -> Result<(), FsError> {
        self.allocate(caller, ino, off, len, mode)?;
        self.settle((), Synced::All)
    }

    fn allocate(
        &self,
        caller: &Caller,
        ino: Ino,
        off: u64,
        len: u64,
        mode: AllocateMode,
    ) -> Result<(), FsError> {
        self.require_writable()?;
        let end = off.saturating_add(len);
        if len == 0 {
            return Err(FsError::Invalid);
        }
        if end > FILE_BYTES_MAX {
            return Err(FsError::TooBig);
        }
        let node = self.node(ino)?;
        let mut state = node.write();
        if state.row.kind != Kind::File {
            return Err(FsError::Unsupported);
        }
        if state.dead {
            return Err(FsError::NotFound);
        }
        require_data(ino, &state)?;
        self.finish_trim(ino, &mut state)?;
        let now = self.now();
        let mut row = InodeRow { mtime: now, ctime: now, ..state.row.clone() };
        if !caller.privileged {
            row.perm = without_privileges(row.perm, caller.gid == row.gid);
        }
        let grow_to = match mode {
            AllocateMode::Reserve { keep_size: false } | AllocateMode::Zero { keep_size: false } => end,
            _ => 0,
        };
        if mode != AllocateMode::Punch {
            self.require_space(len)?;
        }
        row.size = row.size.max(grow_to);
        match mode {
            AllocateMode::Reserve { .. } => {
                self.commit_row(self.rows.begin(), ino, &mut state, row)?;
                Ok(())
            }
            AllocateMode::Punch | AllocateMode::Zero { .. } => {
                // Beyond the old end there is nothing to make zero.
                let end = end.min(state.row.size);
                if off < end {
                    self.zero(ino, &mut state, off..end, row)
                } else {
                    self.commit_row(self.rows.begin(), ino, &mut state, row)?;
                    Ok(())
                }
            }
        }
    }

    /// The first offset at or after `off` that holds data, or lies in a hole (the end of the file is one).
    pub fn seek(&self, ino: Ino, off: u64, to: SeekTo) -> Result<u64, FsError> {
        let node = self.node(ino)?;
        if node.read().extents.is_none() {
            self.load_extents(ino, &mut node.write())?;
        }
        let state = node.read();
        require_file(&state)?;
        require_data(ino, &state)?;
        let size = state.row.size;
        if off >= size {
            return Err(FsError::NoSuchOffset);
        }
        let mut pos = off;
        while pos < size {
            let (is_data, end) = self.run_at(ino, &state, pos, size)?;
            if is_data == (to == SeekTo::Data) {
                return Ok(pos);
            }
            pos = end;
        }
        match to {
            SeekTo::Data => Err(FsError::NoSuchOffset),
            SeekTo::Hole => Ok(size),
        }
    }

    /// Whether there is data at `pos`, and where that run may end (it may go on in kind after that).
    pub(super) fn run_at(
        &self,
        ino: Ino,
        state: &State,
        pos: u64,
        size: u64,
    ) -> Result<(bool, u64), FsError> {
        let empty = ExtentMap::new();
        let map = state.extents.as_ref().unwrap_or(&empty);
        let gap_end = match extents::overlapping(map, pos..size).next() {
            Some((off, row)) if off <= pos => {
                let end = off.saturating_add(row.len).min(size);
                return Ok((matches!(row.source, ExtentSource::Payload { .. }), end));
            }
            Some((off, _)) => off,
            None => size,
        };
        if !state.row.has_chunks() {
            return Ok((false, gap_end));
        }
        let chunk_bytes = state.row.chunk_bytes();
        let (first, last) = (pos / chunk_bytes, (gap_end - 1) / chunk_bytes);
        let Some((n, chunk)) = self.rows.live().chunks(ino, first, last + 1, 1)?.into_iter().next() else {
            return Ok((false, gap_end));
        };
        let start = n * chunk_bytes;
        let data_end = start.saturating_add(u64::from(chunk.plain_len));
        Ok(if start > pos {
            (false, start.min(gap_end))
        } else if pos < data_end {
            (true, data_end.min(gap_end))
        } else {
            (false, (start + chunk_bytes).min(gap_end))
        })
    }
}
