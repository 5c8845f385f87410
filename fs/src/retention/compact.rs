//! Emptying pieces that are mostly dead.
//!
//! Promises: what lives in them is written into new pieces, bytes and keys as they were, and a commit of the same namespace says where it lies now; the old
//! pieces are left as they are, with their copies, until a later look finds that no head and no row needs them. Whatever fails or crashes in between leaves
//! blocks in two places, never in none. Refuses to wait long: a block that does not come leaves its piece for another time.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_content::block::{PieceId, digest_of};
use holdfast_content::class::Class;
use holdfast_content::commit::Commit;
use holdfast_content::location;
use holdfast_content::retrieve::{FetchError, Priority};
use holdfast_content::tree::{Edit, PhysicalRef};
use holdfast_store::{Reads, Table, Txn};

use super::TXN_ROWS;
use super::judge::Judged;
use super::mark::Marks;
use crate::drive::error::hex;
use crate::drive::{CommitInfo, Drive, DriveError, Inner};
use crate::pieces::classes;
use crate::pieces::rows::BlockRow;
use crate::pieces::writer::PieceSink;
use crate::seal::classes::highest;
use crate::seal::commit_row::CommitRow;
use crate::seal::{self, SealState};

/// Seals wait for no longer than this, and one more block.
const TIME_MAX: Duration = Duration::from_secs(15);
/// Entries of the location tree that are worth a commit of their own.
const FORGET_MIN: usize = 20_000;

#[derive(Default)]
pub(super) struct Compacted {
    pub(super) moved_bytes: u64,
    pub(super) more: bool,
}

impl Drive {
    /// Empties the pieces that were chosen. Seals are held; the newest commit is the published one.
    pub(super) fn compact(
        &self,
        state: &mut SealState,
        marks: &Marks,
        judged: Judged,
    ) -> Result<Compacted, DriveError> {
        let Some(last) = state.last.clone() else { return Ok(Compacted::default()) };
        if judged.emptied.is_empty() && marks.forgotten.len() < FORGET_MIN {
            return Ok(Compacted { moved_bytes: 0, more: judged.more });
        }
        let parts = &self.inner.parts;
        let mut sink = parts.sink(std::mem::take(&mut state.placed));
        let result = self.move_and_commit(state, &last, marks, judged, &mut sink);
        match result {
            Ok((row, compacted)) => {
                state.pieces.clear();
                state.last = Some(row.clone());
                self.inner.adopt(&row);
                self.inner.recount_pieces()?;
                Ok(compacted)
            }
            Err(error) => {
                state.pieces.extend_from_slice(sink.finished());
                state.placed = sink.into_placed();
                Err(error)
            }
        }
    }

    fn move_and_commit(
        &self,
        state: &SealState,
        last: &CommitRow,
        marks: &Marks,
        mut judged: Judged,
        sink: &mut PieceSink<'_>,
    ) -> Result<(CommitRow, Compacted), DriveError> {
        let parts = &self.inner.parts;
        let mut compacted = Compacted { moved_bytes: 0, more: judged.more };
        sink.set_trees_class(highest(&parts.rows().live())?);
        sink.empty(judged.emptied.keys().copied().collect());
        let until = self.inner.ambient.clock.now() + TIME_MAX;
        for (piece, blocks) in std::mem::take(&mut judged.emptied) {
            // What else is in the piece is not known to ask for less.
            let class = classes::of(&parts.store, &piece)?;
            match self.move_blocks(marks, (&blocks, class), until, sink) {
                Ok(moved) => compacted.moved_bytes += moved,
                Err(error) if error.is_retryable() => {
                    tracing::info!(piece = hex(&piece), %error, "a piece is emptied later");
                    compacted.more = true;
                }
                Err(error) => return Err(error),
            }
        }
        parts.options.edges.hit("compact.blocks.after");
        let commit = Commit {
            sequence: last.info.sequence + 1,
            namespace: last.namespace.clone(),
            previous: Some(last.info.commit.clone()),
            device: parts.options.device,
            term: parts.options.term,
            lsn: last.cut(),
            time_ms: parts.now_ms(),
            pending_files: last.info.pending.len() as u64,
            pending: last.info.pending.clone(),
            stats: last.stats,
        };
        let encoded = commit.encode(&parts.keys).map_err(|error| DriveError::damaged("commit", error))?;
        let at = sink.write(&encoded.body)?;
        sink.write(&encoded.directory)?;
        let location_root = self.write_location(last, marks, sink)?;
        sink.finish()?;
        let mut new_pieces = state.pieces.clone();
        new_pieces.extend_from_slice(sink.finished());
        let row = CommitRow {
            info: CommitInfo {
                sequence: commit.sequence,
                cut: last.cut(),
                commit: encoded.reference(at),
                location_root,
                new_pieces,
                pending: commit.pending,
                time: commit.time_ms / 1000,
            },
            namespace: commit.namespace,
            stats: commit.stats,
        };
        seal::install_commit(parts, &row, &row.info.pending.iter().copied().collect())?;
        parts.options.edges.hit("compact.commit.after");
        Ok((row, compacted))
    }

    /// Writes one piece's living blocks anew. Nodes of location trees are not moved as they are: they are found by their place, so that those above them
    /// change with it.
    fn move_blocks(
        &self,
        marks: &Marks,
        (blocks, class): (&[([u8; 32], BlockRow)], Class),
        until: Duration,
        sink: &mut PieceSink<'_>,
    ) -> Result<u64, DriveError> {
        let mut moved = 0;
        for (digest, row) in blocks {
            if marks.location_nodes.contains_key(digest) || marks.older_location_nodes.contains(digest) {
                continue;
            }
            if self.inner.ambient.clock.now() > until {
                return Err(FetchError::Timeout.into());
            }
            sink.write_as(&self.read_block(&row.at(digest))?, class, 0)?;
            moved += u64::from(row.len);
        }
        Ok(moved)
    }

    /// The location tree with the new places, without what nothing reaches, and with no node of it in an emptied piece.
    fn write_location(
        &self,
        last: &CommitRow,
        marks: &Marks,
        sink: &mut PieceSink<'_>,
    ) -> Result<PhysicalRef, DriveError> {
        let trees = &self.inner.parts.trees;
        let source = trees.source(Priority::Bulk);
        let old_root = &last.info.location_root;
        let mut edits: BTreeMap<Vec<u8>, Edit> = BTreeMap::new();
        for (piece, first_key) in marks.location_nodes.values() {
            if sink.empties(piece)
                && let Some(entry) = trees.location.get(&source, old_root, first_key)?
            {
                let again = Edit { key: entry.key.clone(), change: Some((entry.value, entry.links)) };
                edits.insert(entry.key.to_vec(), again);
            }
        }
        sink.write_location(|places, sink| {
            // A compaction moves a bounded number of blocks.
            let places: BTreeMap<_, _> = places.collect::<Result<_, DriveError>>()?;
            let forgotten: Vec<_> =
                marks.forgotten.iter().filter(|digest| !places.contains_key(*digest)).collect();
            self.forget_blocks(&forgotten)?;
            for digest in forgotten {
                edits.insert(digest.to_vec(), location::delete(digest));
            }
            for (digest, row) in &places {
                edits.insert(digest.to_vec(), location::put(&row.at(digest))?);
            }
            Ok(trees.location.apply_anew(&source, Some(old_root), edits.into_values(), sink)?.root)
        })
    }

    /// A block that the location tree does not list must have no row either: who found it by its row would refer to what no restore finds.
    fn forget_blocks(&self, digests: &[&[u8; 32]]) -> Result<(), DriveError> {
        for part in digests.chunks(TXN_ROWS) {
            let mut txn = Txn::new();
            for digest in part {
                txn.delete(Table::Block, *digest);
            }
            self.inner.parts.store.commit(txn)?;
        }
        Ok(())
    }

    /// Kept commits whose blocks were moved are found at the new place. Only those below the published one: a head may name these still, and by their place.
    pub(super) fn follow_commits(&self, published: u64) -> Result<(), DriveError> {
        let mut rows = Vec::new();
        self.inner.each_commit(|row| rows.push(row))?;
        let mut txn = Txn::new();
        for mut row in rows.into_iter().filter(|row| row.info.sequence < published) {
            let at = &mut row.info.commit.at;
            let digest = digest_of(&at.cid)?;
            let Some(block) = self.inner.parts.store.get(Table::Block, &digest)? else { continue };
            let block = BlockRow::decode(&block)?;
            let moved = block.piece != at.piece && self.inner.is_published(block.piece, published)?;
            if moved {
                *at = block.at(&digest);
                txn.put(Table::Commit, CommitRow::key(row.info.sequence), row.encode()?);
            }
        }
        if !txn.is_empty() {
            self.inner.parts.store.commit(txn)?;
        }
        Ok(())
    }
}

impl Inner {
    fn is_published(&self, piece: PieceId, published: u64) -> Result<bool, DriveError> {
        let row = self.piece_row(piece)?;
        Ok(row.is_some_and(|row| row.commit_sequence != 0 && row.commit_sequence <= published))
    }
}
