//! Where a seal meets the living file system: its chunks come in beneath whatever was written since its cut.

use std::sync::Arc;

use crate::rows::{Ino, RowTxn, inode_flags};

use super::Vfs;
use super::error::FsError;
use super::extents::{self, EXTENT_END, Edits};
use super::node::{Node, lock_many};
use super::seams::SealedFile;

impl Vfs {
    /// Begins a record for [`Vfs::install_sealed`]; block, piece and commit rows go in through [`RowTxn::raw`].
    pub fn begin(&self) -> RowTxn<'_> {
        self.rows.begin()
    }

    /// Installs sealed chunks in one record, together with what `txn` holds already.
    ///
    /// A chunk comes in unless one of a later cut is there. Extents with an LSN at or below the cut go where a chunk now
    /// shows the same; newer ones stay on top. Files that are gone meanwhile are passed over. The locks of all files
    /// given are held together for the length of one commit, so give some hundreds at a time, not a whole drive.
    pub fn install_sealed(
        &self,
        mut txn: RowTxn<'_>,
        files: &[SealedFile],
    ) -> Result<holdfast_store::Lsn, FsError> {
        self.load_nodes(files.iter().map(|file| file.ino));
        let mut nodes: Vec<(Arc<Node>, &SealedFile)> = Vec::with_capacity(files.len());
        for file in files {
            match self.node(file.ino) {
                Ok(node) => nodes.push((node, file)),
                Err(FsError::NotFound) => {}
                Err(other) => return Err(other),
            }
        }
        let mut locked = lock_many(&nodes.iter().map(|(node, _)| node).collect::<Vec<_>>());
        self.load_extents_together(&mut locked)?;
        let mut done = Vec::new();
        for (node, file) in &nodes {
            let state = locked.get(node.ino)?;
            // An orphan is not in any commit to come.
            if state.dead || state.row.nlink == 0 {
                continue;
            }
            let edits = self.write_sealed(&mut txn, state, file)?;
            done.push((node.ino, edits));
        }
        let lsn = txn.commit()?;
        for (ino, edits) in done {
            let state = locked.get(ino)?;
            state.row.flags |= inode_flags::HAS_CHUNKS;
            state.chunks.get_mut().clear();
            if let Some(map) = &mut state.extents {
                edits.apply(map);
            }
            self.nodes.recount(state);
        }
        Ok(lsn)
    }

    fn write_sealed(
        &self,
        txn: &mut RowTxn<'_>,
        state: &mut super::node::State,
        file: &SealedFile,
    ) -> Result<Edits, FsError> {
        let ino = file.ino;
        self.load_extents(ino, state)?;
        let chunk_bytes = state.row.chunk_bytes();
        // The parts of the file that chunks now show as of the cut; adjoining ones as one, so that an extent over
        // several chunks is cut once.
        let mut shown: Vec<std::ops::Range<u64>> = Vec::new();
        let add = |shown: &mut Vec<std::ops::Range<u64>>, range: std::ops::Range<u64>| match shown.last_mut()
        {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => shown.push(range),
        };
        let mut chunks: Vec<_> = file.chunks.iter().collect();
        chunks.sort_by_key(|(n, _)| *n);
        for (n, new) in chunks {
            let old = if state.row.has_chunks() { self.rows.live().chunk(ino, *n)? } else { None };
            if old.as_ref().is_some_and(|old| old.cut > file.cut) {
                continue;
            }
            match new {
                Some(chunk) => txn.put_chunk_sealed(ino, *n, chunk),
                None if old.is_some() => txn.delete_chunk_sealed(ino, *n, file.cut),
                None => {}
            }
            let start = n.saturating_mul(chunk_bytes);
            add(&mut shown, start..start.saturating_add(chunk_bytes));
        }
        if let Some(from) = file.empty_from {
            let from = shown.last().map_or(from, |last| last.end.max(from));
            add(&mut shown, from..EXTENT_END);
        }
        let empty = extents::ExtentMap::new();
        let map = state.extents.as_ref().unwrap_or(&empty);
        let edits = cut_ranges(map, &shown, file.cut);
        edits.write(txn, ino);
        if !state.row.has_chunks() {
            let mut row = state.row.clone();
            row.flags |= inode_flags::HAS_CHUNKS;
            txn.put_inode_unchanged(ino, &row);
        }
        Ok(edits)
    }

    /// Whether an inode has a name left; what has none is not sealed.
    pub fn is_orphan(&self, ino: Ino) -> Result<bool, FsError> {
        match self.node(ino) {
            Ok(node) => Ok(node.read().row.nlink == 0),
            Err(FsError::NotFound) => Ok(true),
            Err(other) => Err(other),
        }
    }
}

/// Cuts several ranges (ascending, apart) out of the extents that are not newer than `cut`.
///
/// An extent that reaches into two of them is cut piece by piece on a scratch copy, and its reference changes are summed.
fn cut_ranges(map: &extents::ExtentMap, ranges: &[std::ops::Range<u64>], cut: holdfast_store::Lsn) -> Edits {
    let mut scratch = extents::ExtentMap::new();
    for range in ranges {
        scratch.extend(extents::overlapping(map, range.clone()).map(|(off, row)| (off, *row)));
    }
    let before = scratch.clone();
    let mut total = Edits::default();
    for range in ranges {
        let edits = extents::cut(&scratch, range.clone(), |row| row.lsn <= cut);
        total.data_bytes += edits.data_bytes;
        total.any |= edits.any;
        total.retain.extend(&edits.retain);
        total.release.extend(&edits.release);
        edits.apply(&mut scratch);
    }
    total.delete = before.keys().filter(|off| !scratch.contains_key(off)).copied().collect();
    total.put = scratch.into_iter().filter(|(off, row)| before.get(off) != Some(row)).collect();
    total
}
