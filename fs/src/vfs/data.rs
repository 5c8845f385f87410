//! Reading and writing bytes: extents over chunks over holes.

use std::collections::BTreeMap;
use std::ops::Range;

use holdfast_store::{Lsn, Reads};

use crate::rows::{ChunkRow, ExtentRow, ExtentSource, Ino, InodeRow, Kind, OrphanRow, SCAN_PAGE_ROWS};

use super::attr::without_privileges;
use super::dir::SPREAD_MAX;
use super::error::FsError;
use super::extents::{self, EXTENT_END, ExtentMap};
use super::node::{Locked, State};
use super::remove::REMOVE_ROWS_MAX;
use super::{FILE_BYTES_MAX, Vfs};

/// One write becomes one payload up to this size; the kernel sends no more at once.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Chunk rows fetched together: 8 MiB of a file with 256 KiB chunks.
const CHUNK_WINDOW_ROWS: u64 = 32;
/// How often a write makes room for itself: each time with the rows of [`ROOM_ROWS`](super::remove::ROOM_ROWS).
const ROOM_TRIES: usize = 16;
/// Chunk rows that an inode remembers.
const CHUNK_ROWS_KEPT: usize = 128;

/// How a write is meant.
#[derive(Debug, Clone, Copy, Default)]
pub struct WriteMode {
    /// At the end of the file, wherever that is by then; the offset is ignored.
    pub append: bool,
    /// The writer may not keep setuid and setgid; the group as whose member it comes.
    pub kill_privileges: Option<u32>,
    /// Pages that the kernel accepted from a program long ago: turned away only when nothing else is left.
    pub from_cache: bool,
    /// The kernel keeps this file's times and sends them by itself.
    pub times_follow: bool,
}

/// Whether a read is noted; it is not for who opened the file with O_NOATIME.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Atime {
    Moves,
    Stays,
}

/// Bytes of a read that come from a chunk.
struct ChunkPart {
    at: Range<usize>,
    n: u64,
    chunk: ChunkRow,
    skip: u64,
}

impl Vfs {
    /// Writes `data`; one record for each MiB of it. Returns how many bytes were written, at least one.
    pub fn write(&self, ino: Ino, off: u64, data: &[u8], mode: WriteMode) -> Result<usize, FsError> {
        self.require_writable()?;
        if !mode.from_cache {
            self.require_space(data.len() as u64)?;
        }
        let mut done = 0;
        for part in data.chunks(PAYLOAD_BYTES_MAX) {
            match self.write_part_with_room(ino, off.saturating_add(done as u64), part, mode) {
                Ok(written) if written == part.len() => done += written,
                // Of pages that it has accepted the kernel takes a short answer for a whole one; an error it keeps for fsync.
                Ok(_) if mode.from_cache => return Err(FsError::TooBig),
                Ok(written) => return Ok(done + written),
                Err(error) if done == 0 || mode.from_cache => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// On a full disk what was deleted goes first, as far as it can without waiting for anybody but the disk.
    fn write_part_with_room(
        &self,
        ino: Ino,
        off: u64,
        data: &[u8],
        mode: WriteMode,
    ) -> Result<usize, FsError> {
        for _ in 0..ROOM_TRIES {
            match self.write_part(ino, off, data, mode) {
                Err(FsError::NoSpace) if self.make_room() => {}
                other => return other,
            }
        }
        self.write_part(ino, off, data, mode)
    }

    fn write_part(&self, ino: Ino, off: u64, data: &[u8], mode: WriteMode) -> Result<usize, FsError> {
        let node = self.node(ino)?;
        // A write that crosses the largest offset is cut short there.
        let room = if mode.append { FILE_BYTES_MAX } else { FILE_BYTES_MAX.saturating_sub(off) };
        if room == 0 {
            return Err(FsError::TooBig);
        }
        let data = data.get(..usize::try_from(room).unwrap_or(usize::MAX)).unwrap_or(data);
        let len = data.len() as u64;
        // Sealed and, if it is large, written before any lock is taken.
        let payload = self.rows.store().stage_payload(data)?;
        let mut state = node.write();
        require_file(&state)?;
        if state.dead {
            return Err(FsError::NotFound);
        }
        let off = if mode.append { state.row.size } else { off };
        let end = off.saturating_add(len);
        if end > FILE_BYTES_MAX {
            return Err(FsError::TooBig);
        }
        require_data(ino, &state)?;
        self.finish_trim(ino, &mut state)?;
        self.load_extents(ino, &mut state)?;
        let covered_by_chunks = self.chunk_bytes_in_gaps(ino, &state, off..end)?;
        let now = self.now();
        let mut row = state.row.clone();
        let map = state.extents.get_or_insert_default();
        let edits = extents::cut(map, off..end, |_| true);
        row.allocated += len.saturating_sub(edits.data_bytes).saturating_sub(covered_by_chunks);
        row.size = row.size.max(end);
        // Of its cached writes the kernel keeps the times itself and sends them when they changed: at the next tick only,
        // so that a later time of ours would stay.
        if !mode.times_follow {
            (row.mtime, row.ctime) = (now, now);
        }
        if let Some(group) = mode.kill_privileges {
            row.perm = without_privileges(row.perm, group == row.gid);
        }
        let mut txn = self.rows.begin();
        txn.payload(payload);
        edits.write(&mut txn, ino);
        txn.put_new_extent(ino, off, len, 0);
        txn.put_inode(ino, &row);
        let lsn = txn.commit()?;
        row.lsn = lsn;
        edits.apply(map);
        map.insert(off, ExtentRow { len, lsn, source: ExtentSource::Payload { payload: lsn, skip: 0 } });
        state.row = row;
        state.atime_dirty = false;
        self.nodes.recount(&mut state);
        Ok(data.len())
    }

    /// Reads into `buf`; fewer bytes than asked for only at the end of the file.
    pub fn read(&self, ino: Ino, off: u64, buf: &mut [u8]) -> Result<usize, FsError> {
        self.read_noting(ino, off, buf, Atime::Moves)
    }

    /// The same for who may not want it to be noted.
    pub fn read_noting(&self, ino: Ino, off: u64, buf: &mut [u8], atime: Atime) -> Result<usize, FsError> {
        match self.read_inner(ino, off, buf, atime, true)? {
            Some(read) => Ok(read),
            None => Err(FsError::TimedOut),
        }
    }

    /// The same, but gives up (`None`) where an answer could have to wait for the network.
    pub fn read_without_waiting(
        &self,
        ino: Ino,
        off: u64,
        buf: &mut [u8],
        atime: Atime,
    ) -> Result<Option<usize>, FsError> {
        if self.may_block(ino, None) {
            return Ok(None);
        }
        self.read_inner(ino, off, buf, atime, false)
    }

    fn read_inner(
        &self,
        ino: Ino,
        off: u64,
        buf: &mut [u8],
        atime: Atime,
        wait: bool,
    ) -> Result<Option<usize>, FsError> {
        let node = self.node(ino)?;
        if atime == Atime::Moves {
            self.note_read(&node);
        }
        if node.read().extents.is_none() {
            self.load_extents(ino, &mut node.write())?;
        }
        let (read, parts) = {
            let state = node.read();
            require_file(&state)?;
            require_data(ino, &state)?;
            let left = state.row.size.saturating_sub(off);
            let read = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let Some(buf) = buf.get_mut(..read) else { return Ok(Some(0)) };
            match self.read_extents(ino, &state, off, buf, wait)? {
                Some(parts) => (read, parts),
                None => return Ok(None),
            }
        };
        // No lock is held: a chunk is named by its content, so nothing can change it meanwhile.
        let far = self.readahead.get().is_some() || !wait;
        let far = far && parts.iter().any(|part| !self.chunks.is_local(&part.chunk));
        if far && !wait {
            return Ok(None);
        }
        if let (Some(first), Some(last)) = (parts.first(), parts.last()) {
            self.look_ahead(&node, first.n..=last.n, far);
        }
        let chunks: Vec<ChunkRow> = parts.iter().map(|part| part.chunk.clone()).collect();
        for (part, plain) in parts.into_iter().zip(self.chunks.read_chunks(&chunks)) {
            let plain = plain?;
            let Some(to) = buf.get_mut(part.at) else { continue };
            let from = usize::try_from(part.skip).ok().and_then(|skip| plain.get(skip..)).unwrap_or_default();
            let n = from.len().min(to.len());
            let (head, tail) = to.split_at_mut(n);
            head.copy_from_slice(from.get(..n).unwrap_or_default());
            tail.fill(0);
        }
        Ok(Some(read))
    }

    /// Fills what comes from payloads and holes; returns what comes from chunks (`None`: would have to wait).
    fn read_extents(
        &self,
        ino: Ino,
        state: &State,
        off: u64,
        buf: &mut [u8],
        wait: bool,
    ) -> Result<Option<Vec<ChunkPart>>, FsError> {
        let range = off..off.saturating_add(buf.len() as u64);
        let empty = ExtentMap::new();
        let map = state.extents.as_ref().unwrap_or(&empty);
        let at = |pos: u64| usize::try_from(pos.saturating_sub(off)).unwrap_or(usize::MAX);
        for (start, row) in extents::overlapping(map, range.clone()) {
            let (from, to) = (start.max(range.start), start.saturating_add(row.len).min(range.end));
            let Some(part) = buf.get_mut(at(from)..at(to)) else { continue };
            match row.source {
                ExtentSource::Zero => part.fill(0),
                ExtentSource::Payload { payload, skip } => {
                    self.rows.store().read_payload(payload, skip.saturating_add(from - start), part)?;
                }
            }
        }
        let mut parts = Vec::new();
        for gap in extents::gaps(map, range) {
            if !state.row.has_chunks() {
                if let Some(part) = buf.get_mut(at(gap.start)..at(gap.end)) {
                    part.fill(0);
                }
                continue;
            }
            let chunk_bytes = state.row.chunk_bytes();
            let mut pos = gap.start;
            while pos < gap.end {
                let n = pos / chunk_bytes;
                let end = ((n + 1) * chunk_bytes).min(gap.end);
                let Some(chunk) = self.chunk_row(ino, state, n, wait)? else { return Ok(None) };
                match chunk {
                    Some(chunk) => {
                        parts.push(ChunkPart { at: at(pos)..at(end), n, chunk, skip: pos - n * chunk_bytes });
                    }
                    None => buf.get_mut(at(pos)..at(end)).into_iter().for_each(|part| part.fill(0)),
                }
                pos = end;
            }
        }
        Ok(Some(parts))
    }

    /// One chunk row, through the inode's window. The outer `None`: it would have to come from the network.
    pub(super) fn chunk_row(
        &self,
        ino: Ino,
        state: &State,
        n: u64,
        wait: bool,
    ) -> Result<Option<Option<ChunkRow>>, FsError> {
        if let Some(known) = state.chunks.lock().get(&n) {
            return Ok(Some(known.clone()));
        }
        if !wait && self.rows.has_base() {
            return Ok(None);
        }
        let end = n.saturating_add(CHUNK_WINDOW_ROWS);
        let found = self.rows.live().chunks(ino, n, end, SCAN_PAGE_ROWS)?;
        let mut window: BTreeMap<u64, Option<ChunkRow>> = (n..end).map(|n| (n, None)).collect();
        window.extend(found.into_iter().map(|(n, row)| (n, Some(row))));
        let row = window.get(&n).cloned().flatten();
        let mut kept = state.chunks.lock();
        if kept.len() >= CHUNK_ROWS_KEPT {
            kept.clear();
        }
        kept.append(&mut window);
        Ok(Some(row))
    }

    /// Whether the beginning of a file (64 chunks) can be read without the network. May itself wait for rows.
    pub fn is_here(&self, ino: Ino) -> Result<bool, FsError> {
        let node = self.node(ino)?;
        if node.read().extents.is_none() {
            self.load_extents(ino, &mut node.write())?;
        }
        let state = node.read();
        if !state.row.has_chunks() || state.row.lacks_data() {
            return Ok(true);
        }
        let (chunk_bytes, empty) = (state.row.chunk_bytes(), ExtentMap::new());
        let range = 0..state.row.size.min(chunk_bytes.saturating_mul(64));
        for gap in extents::gaps(state.extents.as_ref().unwrap_or(&empty), range) {
            for n in gap.start / chunk_bytes..gap.end.div_ceil(chunk_bytes) {
                let chunk = self.chunk_row(ino, &state, n, true)?.flatten();
                if chunk.is_some_and(|chunk| !self.chunks.is_local(&chunk)) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// How many bytes of the parts of `range` that no extent covers hold a chunk's data.
    ///
    /// Never waits for the network: whoever writes must not, and a chunk of which nothing is known here counts as full.
    pub(super) fn chunk_bytes_in_gaps(
        &self,
        ino: Ino,
        state: &State,
        range: Range<u64>,
    ) -> Result<u64, FsError> {
        if !state.row.has_chunks() {
            return Ok(0);
        }
        let empty = ExtentMap::new();
        let chunk_bytes = state.row.chunk_bytes();
        let mut sum = 0;
        for gap in extents::gaps(state.extents.as_ref().unwrap_or(&empty), range) {
            let mut pos = gap.start;
            while pos < gap.end {
                let n = pos / chunk_bytes;
                let end = ((n + 1) * chunk_bytes).min(gap.end);
                let plain_len = match self.chunk_row(ino, state, n, false)? {
                    Some(Some(chunk)) => u64::from(chunk.plain_len),
                    Some(None) => 0,
                    None => chunk_bytes,
                };
                let data_end = (n * chunk_bytes).saturating_add(plain_len).min(state.row.size);
                sum += data_end.min(end).saturating_sub(pos);
                pos = end;
            }
        }
        Ok(sum)
    }

    /// Reads an inode's extents into memory; does nothing if they are there.
    pub(super) fn load_extents(&self, ino: Ino, state: &mut State) -> Result<(), FsError> {
        if state.extents.is_some() || state.row.kind != Kind::File {
            return Ok(());
        }
        let mut map = ExtentMap::new();
        let mut from = 0;
        loop {
            let page = self.rows.live().extents(ino, from, SCAN_PAGE_ROWS)?;
            let full = page.len() == SCAN_PAGE_ROWS;
            if let Some((off, _)) = page.last() {
                from = off + 1;
            }
            map.extend(page);
            if !full {
                break;
            }
        }
        state.extents = Some(map);
        self.nodes.recount(state);
        Ok(())
    }

    /// The same for several files whose locks are held, by one look where they lie close together: a look costs more than some rows.
    pub(super) fn load_extents_together(&self, locked: &mut Locked<'_>) -> Result<(), FsError> {
        let lacks = |state: &State| state.extents.is_none() && state.row.kind == Kind::File;
        let mut lacking: Vec<(Ino, &mut State)> =
            locked.iter_mut().filter(|(_, state)| lacks(state)).collect();
        let (Some((first, _)), Some((last, _))) = (lacking.first(), lacking.last()) else { return Ok(()) };
        let (first, last) = (*first, *last);
        if lacking.len() < 2 || last - first >= lacking.len() as u64 * SPREAD_MAX {
            return Ok(());
        }
        let page = self.rows.live().extents_between(first, last, SCAN_PAGE_ROWS)?;
        // Of the last one on a full page there may be more.
        let known_below = match page.last() {
            Some((ino, ..)) if page.len() == SCAN_PAGE_ROWS => *ino,
            _ => last.saturating_add(1),
        };
        let mut rows = page.into_iter().peekable();
        for (ino, state) in lacking.iter_mut().filter(|(ino, _)| *ino < known_below) {
            while rows.next_if(|(of, ..)| *of < *ino).is_some() {}
            let mut map = ExtentMap::new();
            while let Some((_, off, row)) = rows.next_if(|(of, ..)| of == ino) {
                map.insert(off, row);
            }
            state.extents = Some(map);
            self.nodes.recount(state);
        }
        Ok(())
    }

    /// Sets a file's size; `row` is its row to be, all but the size. Commits.
    pub(super) fn resize(
        &self,
        ino: Ino,
        state: &mut State,
        size: u64,
        row: InodeRow,
    ) -> Result<(), FsError> {
        if size > FILE_BYTES_MAX {
            return Err(FsError::TooBig);
        }
        self.finish_trim(ino, state)?;
        if size > 0 {
            require_data(ino, state)?;
        }
        let row = InodeRow { size, allocated: state.row.allocated, ..row };
        if size < state.row.size {
            return self.trim(ino, state, size, row);
        }
        self.commit_row(self.rows.begin(), ino, state, row)?;
        Ok(())
    }

    /// Cuts everything from byte `from` on away and leaves zeros there for ever. `row` is the row to be, all but the size.
    ///
    /// Too many extents for one record go in several, under a mark. With the mark the file has its new size; what is behind
    /// that goes then, or before the file grows again, or at the next start.
    pub(super) fn trim(&self, ino: Ino, state: &mut State, from: u64, row: InodeRow) -> Result<(), FsError> {
        self.load_extents(ino, state)?;
        let row = InodeRow { size: from, ..row };
        let map = state.extents.get_or_insert_default();
        if map.range(from..).nth(REMOVE_ROWS_MAX).is_none() {
            return self.trim_rest(ino, state, from, row);
        }
        let mut txn = self.rows.begin();
        // An orphan has its mark already, and needs nothing more after a crash.
        if row.nlink > 0 {
            txn.put_orphan(ino, OrphanRow::Trim { from });
        }
        self.commit_row(txn, ino, state, row)?;
        state.trimming = Some(from);
        self.finish_trim_or_later(ino, state);
        Ok(())
    }

    /// [`Vfs::finish_trim`], or where that fails the same again with the next round of housekeeping.
    pub(super) fn finish_trim_or_later(&self, ino: Ino, state: &mut State) {
        if let Err(error) = self.finish_trim(ino, state) {
            tracing::warn!(ino, %error, "what was cut off a file goes later");
            self.reclaim_later(ino);
        }
    }

    /// Ends a truncation that is under way, if one is. Whatever makes a file longer comes here first.
    pub(super) fn finish_trim(&self, ino: Ino, state: &mut State) -> Result<(), FsError> {
        let Some(from) = state.trimming else { return Ok(()) };
        self.load_extents(ino, state)?;
        loop {
            let map = state.extents.get_or_insert_default();
            let last: Vec<_> =
                map.range(from..).rev().take(REMOVE_ROWS_MAX).map(|(off, e)| (*off, *e)).collect();
            if last.len() < REMOVE_ROWS_MAX {
                break;
            }
            let mut row = state.row.clone();
            let mut txn = self.rows.begin();
            for (off, extent) in &last {
                txn.delete_extent(ino, *off);
                if let Some(payload) = extent.payload() {
                    txn.release(payload);
                    row.allocated = row.allocated.saturating_sub(extent.len);
                }
            }
            self.commit_row(txn, ino, state, row)?;
            let map = state.extents.get_or_insert_default();
            last.iter().for_each(|(off, _)| {
                map.remove(off);
            });
        }
        let row = state.row.clone();
        self.trim_rest(ino, state, from, row)
    }

    /// The record that ends a truncation, for most the only one: what extents are left, zeros in their place, the row, and the mark's end.
    fn trim_rest(&self, ino: Ino, state: &mut State, from: u64, mut row: InodeRow) -> Result<(), FsError> {
        let marked = state.trimming.is_some();
        let map = state.extents.get_or_insert_default();
        let edits = extents::cut(map, from..EXTENT_END, |_| true);
        row.allocated = row.allocated.saturating_sub(edits.data_bytes);
        if row.has_chunks() {
            // Counting the chunks of a large file costs more than the exact figure is worth.
            row.allocated = row.allocated.min(from);
        }
        // Where there was never data there is nothing to hide, now or in a seal under way.
        let hide = edits.any || marked || row.has_chunks();
        let mut txn = self.rows.begin();
        edits.write(&mut txn, ino);
        if hide {
            txn.put_shared_extent(ino, from, EXTENT_END - from, ExtentSource::Zero);
        }
        if marked && row.nlink > 0 {
            txn.delete_orphan(ino);
        }
        let lsn = self.commit_row(txn, ino, state, row)?;
        let map = state.extents.get_or_insert_default();
        edits.apply(map);
        if hide {
            map.insert(from, extents::zeros(EXTENT_END - from, lsn));
        }
        state.trimming = None;
        self.nodes.recount(state);
        Ok(())
    }

    /// Puts zeros over `range` (within the file). `row` is the row to be. Commits.
    pub(super) fn zero(
        &self,
        ino: Ino,
        state: &mut State,
        range: Range<u64>,
        mut row: InodeRow,
    ) -> Result<(), FsError> {
        self.load_extents(ino, state)?;
        let mut pos = range.start;
        while pos < range.end {
            let map = state.extents.get_or_insert_default();
            // So far that one record suffices.
            let end = extents::overlapping(map, pos..range.end)
                .nth(REMOVE_ROWS_MAX)
                .map_or(range.end, |(off, _)| off.max(pos + 1));
            let chunk_bytes = match (end - pos) >> row.chunk_log2 {
                // Beyond a window of chunks an estimate will do.
                0..CHUNK_WINDOW_ROWS => self.chunk_bytes_in_gaps(ino, state, pos..end)?,
                _ if row.has_chunks() => end - pos,
                _ => 0,
            };
            let map = state.extents.get_or_insert_default();
            let edits = extents::cut(map, pos..end, |_| true);
            row.allocated = row.allocated.saturating_sub(edits.data_bytes.saturating_add(chunk_bytes));
            let hide = edits.any || row.has_chunks();
            let mut txn = self.rows.begin();
            edits.write(&mut txn, ino);
            if hide {
                txn.put_shared_extent(ino, pos, end - pos, ExtentSource::Zero);
            }
            txn.put_inode(ino, &row);
            let lsn: Lsn = txn.commit()?;
            edits.apply(map);
            if hide {
                map.insert(pos, extents::zeros(end - pos, lsn));
            }
            row.lsn = lsn;
            state.row = row.clone();
            state.atime_dirty = false;
            pos = end;
        }
        self.nodes.recount(state);
        Ok(())
    }
}

pub(super) fn require_file(state: &State) -> Result<(), FsError> {
    match state.row.kind {
        Kind::File => Ok(()),
        Kind::Dir => Err(FsError::IsDir),
        _ => Err(FsError::Invalid),
    }
}

/// A file whose data is in no commit that this drive has can be emptied, moved, replaced and removed; what it held is neither shown nor written over in part.
pub(super) fn require_data(ino: Ino, state: &State) -> Result<(), FsError> {
    if state.row.lacks_data() { Err(FsError::LacksData(ino)) } else { Ok(()) }
}
