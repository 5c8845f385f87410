//! Sealing: the drive at one LSN becomes encrypted blocks in pieces and a commit.
//!
//! Owns: rounds, the order of steps, and the installation of what was made. Promises: a commit is exactly the cut; a seal that is interrupted at any point
//! is repeated from its last finished piece; the foreground waits for nothing longer than one file's installation; the cost is that of the changes.
//! Refuses to run twice at once.
//!
//! Orderings that *must* hold: see `fs/format/sealing.md`.
//!
//!     cut (snapshot) ─► data round: chunks ─► pieces ─► installed as pieces are finished       repeated under new cuts while there is much
//!                    └► last round: DAGs ─► namespace tree ─► commit ─► location tree ─► last piece ─► install ─► commit row ─► sync ─► sweep

pub(crate) mod classes;
mod commit;
pub(crate) mod commit_row;
pub(crate) mod dag;
mod data;
pub(crate) mod edits;
mod lanes;
mod overlay;
mod plan;
mod pool;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_content::block::PieceId;
use holdfast_content::keys::DriveKeys;
use holdfast_content::rng::Rng;
use holdfast_store::{Lsn, Reads, Store, Table, Txn};

use self::classes::Classes;
use self::commit_row::CommitRow;
use self::data::{Cut, Lap};
use self::edits::Gone;
use self::pool::Haste;
use crate::drive::error::DriveError;
use crate::drive::types::{CommitInfo, DriveOptions};
use crate::pieces::chunks::Chunks;
use crate::pieces::folder::Folder;
use crate::pieces::places::Places;
use crate::pieces::rows::PieceRow;
use crate::pieces::writer::{PieceSink, SinkParts};
use crate::policy::walk;
use crate::restore::Trees;
use crate::rows::{Ino, Rows, keys, mark_again, mark_sealed, marks};
use crate::vfs::Vfs;
use crate::vfs::seams::{Now, SealedFile};

/// Chunks of one round at most: bounds the new rows in memory (some 250 bytes each) and how long a snapshot lives.
pub(crate) const ROUND_CHUNKS_MAX: u64 = 32_768;
/// Files installed under one hold of their locks: some tens of microseconds.
const INSTALL_FILES: usize = 16;
/// Rows changed by one such record, milliseconds for one large file; a part of a file may have more by those of one chunk.
pub(crate) const INSTALL_ROWS: usize = 2048;
/// Rows written in one record.
const TXN_ROWS: usize = 512;

/// Among the pending inodes of a commit: it counts more than it lists. No inode has this number.
pub(crate) const UNLISTED: Ino = 0;

/// What sealing needs of the drive.
pub(crate) struct SealParts {
    pub(crate) store: Store,
    pub(crate) vfs: Arc<Vfs>,
    pub(crate) folder: Arc<Folder>,
    pub(crate) chunks: Arc<Chunks>,
    pub(crate) trees: Arc<Trees>,
    pub(crate) keys: Arc<DriveKeys>,
    pub(crate) options: DriveOptions,
    pub(crate) haste: Haste,
    pub(crate) now: Arc<dyn Now>,
    pub(crate) rng: Arc<dyn Rng>,
}

impl SealParts {
    /// The namespace's rows.
    pub(crate) fn rows(&self) -> &Rows {
        self.vfs.rows()
    }

    /// Unix milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        let now = self.now.now();
        u64::try_from(now.secs).unwrap_or_default().saturating_mul(1000) + u64::from(now.nanos / 1_000_000)
    }

    /// Under a quota the log gives back what was sealed at once, not when its index is written out anyway.
    pub(crate) fn let_go_of_log(&self) -> Result<(), DriveError> {
        if self.options.quota_bytes.is_some() {
            self.store.checkpoint()?;
        }
        Ok(())
    }

    pub(crate) fn sink(&self, placed: Places) -> PieceSink<'_> {
        PieceSink::new(self.sink_parts(false), placed)
    }

    pub(crate) fn sink_parts(&self, checkpoint: bool) -> SinkParts<'_> {
        SinkParts {
            store: &self.store,
            folder: &self.folder,
            blocks: &self.trees.blocks,
            rng: &*self.rng,
            edges: &self.options.edges,
            now: self.now_ms() / 1000,
            piece_bytes_max: self.options.piece_bytes_max,
            checkpoint,
        }
    }
}

/// What outlives a seal: the newest commit, and what was written without one.
#[derive(Default)]
pub(crate) struct SealState {
    pub(crate) last: Option<CommitRow>,
    /// Blocks in finished pieces that no commit covers.
    pub(crate) placed: Places,
    /// Those pieces, oldest first.
    pub(crate) pieces: Vec<PieceId>,
}

/// What a seal came to.
pub(crate) enum Sealed {
    /// A new commit.
    Committed(CommitRow),
    /// The cut holds what the last commit holds. Changed rows up to here say nothing any more (`None`: they do, data is pending).
    Unchanged(Option<Lsn>),
}

/// Makes a commit, if anything changed since the last one.
pub(crate) fn seal(parts: &SealParts, state: &mut SealState) -> Result<Sealed, DriveError> {
    let after = state.last.as_ref().map_or(0, CommitRow::cut);
    if !is_dirty(&parts.store, after)? {
        return Ok(Sealed::Unchanged(None));
    }
    let mut sink = parts.sink(std::mem::take(&mut state.placed));
    let result = rounds(parts, state.last.as_ref(), &state.pieces, &mut sink);
    let finished = sink.finished().to_vec();
    match result {
        Ok(Sealed::Committed(row)) => {
            state.pieces.clear();
            state.last = Some(row.clone());
            Ok(Sealed::Committed(row))
        }
        other => {
            state.placed = sink.into_placed();
            state.pieces.extend(finished);
            other
        }
    }
}

/// Is there a changed row that the last commit does not cover?
pub(crate) fn is_dirty(store: &Store, after: Lsn) -> Result<bool, DriveError> {
    Ok(marks::any(store, after)?)
}

fn rounds(
    parts: &SealParts,
    last: Option<&CommitRow>,
    earlier: &[PieceId],
    sink: &mut PieceSink<'_>,
) -> Result<Sealed, DriveError> {
    let mut round = 0;
    let lacking = last.map(|row| row.info.pending.iter().copied().collect()).unwrap_or_default();
    let mut lap = Lap::begin(last.map_or(0, CommitRow::cut), lacking);
    loop {
        lighten(parts);
        let snapshot = parts.store.cut()?;
        let cut = Cut { view: parts.rows().at(&snapshot), lsn: snapshot.lsn(), snapshot: &snapshot };
        parts.options.edges.hit("seal.cut");
        let mut classes = Classes::at(&cut, &parts.store)?;
        sink.set_trees_class(classes.highest());
        let unlimited = round >= parts.options.seal_rounds_max;
        let (data, waiting) = data::run(parts, &cut, &mut classes, sink, &mut lap, unlimited)?;
        if !data.complete {
            sink.finish()?;
            install(parts, waiting)?;
            round += 1;
            drop(snapshot);
            parts.let_go_of_log()?;
            continue;
        }
        return last_round(parts, &cut, &mut classes, last, earlier, data, lap, waiting, sink);
    }
}

/// A snapshot keeps what the index does not have yet in memory for as long as it lives: if that is much, the index gets it first.
fn lighten(parts: &SealParts) {
    if parts.store.usage().delta_bytes > parts.options.store.layer_bytes_max
        && let Err(error) = parts.store.checkpoint()
    {
        tracing::debug!(%error, "a cut is made over what the index lacks");
    }
}

/// The round that covers all that is left: its cut becomes the commit.
#[allow(clippy::too_many_arguments)]
fn last_round(
    parts: &SealParts,
    cut: &Cut<'_>,
    classes: &mut Classes,
    last: Option<&CommitRow>,
    earlier: &[PieceId],
    data: data::Round,
    lap: Lap,
    waiting: Vec<SealedFile>,
    sink: &mut PieceSink<'_>,
) -> Result<Sealed, DriveError> {
    let after = last.map_or(0, CommitRow::cut);
    let mut new = data.overlay;
    let gone = Gone::find(cut, after)?;
    let unknown = commit::file_dags(cut, after, classes, &mut new, &gone, sink)?;
    walk::begin_all(&parts.store, &unknown)?;
    let Lap { pending, lacking, .. } = lap;
    let without_data: BTreeSet<Ino> = pending.union(&lacking).copied().collect();
    commit::flag_lacking(cut, &mut new, &without_data)?;
    let written = commit::write(parts, cut, last, &new, &gone, &without_data, sink)?;
    sink.finish()?;
    install(parts, waiting)?;
    install_dags(parts, cut.lsn, &new)?;
    let Some(written) = written else {
        return Ok(Sealed::Unchanged(pending.is_empty().then_some(cut.lsn)));
    };
    let mut new_pieces = earlier.to_vec();
    new_pieces.extend_from_slice(sink.finished());
    let row = CommitRow {
        info: CommitInfo {
            sequence: last.map_or(0, |row| row.info.sequence) + 1,
            cut: cut.lsn,
            commit: written.commit,
            location_root: written.location_root,
            new_pieces,
            pending: without_data.into_iter().collect(),
            time: parts.now_ms() / 1000,
        },
        namespace: written.namespace,
        stats: written.stats,
    };
    install_commit(parts, &row, &pending)?;
    Ok(Sealed::Committed(row))
}

/// Installs chunks whose pieces are finished, file by file. A file that went meanwhile is passed over.
pub(crate) fn install(parts: &SealParts, waiting: Vec<SealedFile>) -> Result<(), DriveError> {
    if waiting.is_empty() {
        return Ok(());
    }
    parts.options.edges.hit("seal.install.before");
    // Parts of one file go one after the other: each is cut out of what the one before has left.
    let together = |files: &[SealedFile], next: &SealedFile| {
        files.len() < INSTALL_FILES
            && files.last().is_none_or(|last| last.ino != next.ino)
            && files.iter().map(|file| file.rows).sum::<usize>() + next.rows <= INSTALL_ROWS
    };
    let mut rest = &waiting[..];
    while let Some((_, after)) = rest.split_first() {
        let mut count = 1;
        while after.get(count - 1).is_some_and(|next| together(rest.get(..count).unwrap_or_default(), next)) {
            count += 1;
        }
        let (files, behind) = rest.split_at(count);
        parts.vfs.install_sealed(parts.vfs.begin(), files)?;
        rest = behind;
    }
    parts.options.edges.hit("seal.install.after");
    Ok(())
}

/// Writes the DAG rows. Only a seal writes them, so that no lock is needed.
fn install_dags(parts: &SealParts, cut: Lsn, new: &overlay::Overlay) -> Result<(), DriveError> {
    let mut txn = Txn::new();
    for (key, row) in new.table(Table::Dag) {
        match row {
            Some(row) => txn.put(Table::Dag, key, row.clone()),
            None if parts.rows().has_base() => txn.put(Table::Dag, key, &crate::rows::TOMBSTONE[..]),
            None => txn.delete(Table::Dag, key),
        };
        mark_sealed(&mut txn, cut, Table::Dag, key);
        if txn.len() >= TXN_ROWS {
            parts.store.commit(std::mem::take(&mut txn))?;
        }
    }
    if !txn.is_empty() {
        parts.store.commit(txn)?;
    }
    Ok(())
}

/// The commit's own record: its row, its pieces' rows, and the marks of what is to be tried again.
pub(crate) fn install_commit(
    parts: &SealParts,
    row: &CommitRow,
    pending: &BTreeSet<Ino>,
) -> Result<(), DriveError> {
    parts.options.edges.hit("seal.commit.before");
    let lsn = {
        // Eviction changes piece rows too.
        let _guard = parts.folder.rows_lock();
        let mut txn = Txn::new();
        txn.put(Table::Commit, CommitRow::key(row.info.sequence), row.encode()?);
        for id in &row.info.new_pieces {
            if let Some(old) = parts.store.get(Table::Piece, id)? {
                let old = PieceRow::decode(&old)?;
                txn.put(Table::Piece, id, PieceRow { commit_sequence: row.info.sequence, ..old }.encode());
            }
        }
        for ino in pending.iter().filter(|ino| **ino != UNLISTED) {
            mark_again(&mut txn, Table::Inode, &keys::inode(*ino));
        }
        parts.store.commit(txn)?
    };
    if !pending.is_empty() {
        parts.rows().note_marked(lsn);
    }
    parts.options.edges.hit("seal.commit.after");
    parts.store.sync(lsn)?;
    parts.options.edges.hit("seal.sync.after");
    Ok(())
}

/// Removes the marks that a commit covers.
pub(crate) fn sweep(parts: &SealParts, cut: Lsn) -> Result<(), DriveError> {
    marks::sweep(&parts.store, cut)?;
    parts.options.edges.hit("seal.sweep.after");
    Ok(())
}
