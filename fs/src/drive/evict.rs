//! Pieces that the daemon writes, and pieces that make room.
//!
//! Owns: eviction and checkpoint pieces. Promises: a piece's row says "evicted", on disk, before its file goes; what is not placed stays, whatever the caller
//! believes. Refuses: eviction while someone reads the file, or without proof of enough holders.

use holdfast_content::block::BlockSink;
use holdfast_store::{Table, Txn};

use super::{Drive, DriveError, PieceId, PieceInfo, piece_info};
use crate::pieces::classes;
use crate::pieces::rows::PieceRow;
use crate::pieces::writer::PieceSink;

/// Holders must have answered a challenge within this time before a local copy may go.
const PROVEN_WITHIN_SECONDS: u64 = 24 * 3600;

impl Drive {
    /// Removes a local copy, if the network holds enough that are proven.
    pub fn evict_piece(&self, id: PieceId) -> Result<(), DriveError> {
        let inner = &*self.inner;
        let refuse = |reason| Err(DriveError::NotEvictable { piece: id, reason });
        if inner.pinned_pieces()?.contains(&id) {
            return refuse("a pinned folder's data is in it");
        }
        let evicted = inner.parts.folder.pins().unless_pinned(id, || {
            let _guard = inner.parts.folder.rows_lock();
            let row = inner.piece_row(id)?.ok_or(DriveError::UnknownPiece(id))?;
            if !row.local {
                return Ok(());
            }
            if row.commit_sequence == 0 {
                return refuse("no commit names it");
            }
            let Some(source) = inner.source() else { return refuse("nobody knows who holds it") };
            if source.published_sequence().is_none_or(|published| published < row.commit_sequence) {
                return refuse("no published head reaches it");
            }
            let known = source.piece(id);
            let losses = classes::of(&inner.parts.store, &id)?.losses(inner.parts.options.survive_losses);
            if known.holders_counting <= losses {
                return refuse("too few providers hold it");
            }
            let now = inner.parts.now_ms() / 1000;
            if known.proven_at.is_none_or(|at| now.saturating_sub(at) > PROVEN_WITHIN_SECONDS) {
                return refuse("its providers were not audited of late");
            }
            let mut txn = Txn::new();
            txn.put(Table::Piece, id, PieceRow { local: false, ..row }.encode());
            let lsn = inner.parts.store.commit(txn)?;
            inner.parts.store.sync(lsn)?;
            inner.parts.options.edges.hit("evict.row.after");
            inner.parts.folder.remove(id)
        });
        match evicted {
            Some(result) => {
                result?;
                inner.recount_pieces()
            }
            None => refuse("its file is being read"),
        }
    }

    /// Writes blocks of the daemon's own (a placement checkpoint) into a piece; on disk when this returns.
    pub fn put_checkpoint_piece<T>(
        &self,
        write: impl FnOnce(&mut dyn BlockSink) -> Result<T, DriveError>,
    ) -> Result<(PieceInfo, T), DriveError> {
        let parts = &self.inner.parts;
        let mut sink = PieceSink::new(parts.sink_parts(true), Default::default());
        sink.set_trees_class(parts.vfs.policies()?.highest());
        let value = write(&mut sink)?;
        sink.finish()?;
        let &[id] = sink.finished() else {
            return Err(DriveError::Limit("a checkpoint must fit one piece, and hold a block".to_owned()));
        };
        parts.store.sync(parts.store.last_lsn())?;
        self.inner.recount_pieces()?;
        let row = self.inner.piece_row(id)?.ok_or(DriveError::UnknownPiece(id))?;
        Ok((piece_info(id, &row), value))
    }

    /// Forgets a checkpoint piece that a newer one replaces.
    pub fn drop_checkpoint_piece(&self, id: PieceId) -> Result<(), DriveError> {
        let parts = &self.inner.parts;
        let row = self.inner.piece_row(id)?.ok_or(DriveError::UnknownPiece(id))?;
        if !row.checkpoint {
            return Err(DriveError::NotEvictable { piece: id, reason: "it is no checkpoint" });
        }
        let blocks = self.inner.blocks_of(id, &row)?;
        let mut txn = Txn::new();
        txn.delete(Table::Piece, id);
        classes::delete(&mut txn, &id);
        for digest in blocks {
            txn.delete(Table::Block, digest);
        }
        let lsn = parts.store.commit(txn)?;
        parts.store.sync(lsn)?;
        parts.folder.remove(id)?;
        self.inner.recount_pieces()
    }
}

impl super::Inner {
    /// Digests of the blocks whose rows point into a local piece.
    fn blocks_of(&self, id: PieceId, row: &PieceRow) -> Result<Vec<[u8; 32]>, DriveError> {
        if !row.local {
            return Ok(Vec::new());
        }
        let file = self.parts.folder.open(id)?;
        let damaged = |error| DriveError::damaged("piece", error);
        let mut reader = holdfast_content::car::PieceReader::new(file.reader(), id).map_err(damaged)?;
        let mut digests = Vec::new();
        while let Some(at) = reader.next_place().map_err(damaged)? {
            let digest = holdfast_content::block::digest_of(&at.cid)?;
            if self.parts.trees.blocks.local_row(&digest).is_some_and(|row| row.piece == id) {
                digests.push(digest);
            }
        }
        Ok(digests)
    }
}
