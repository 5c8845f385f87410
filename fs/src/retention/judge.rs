//! What becomes of each piece, by what is marked.
//!
//! Owns: two walks over the block rows. Promises: a piece in which anything is marked is not dead; memory is bounded by the blocks of dead pieces and of
//! those that are to be emptied. Judges only finished pieces of commits up to the published one: what is newer may be on its way.

use std::collections::BTreeMap;

use holdfast_store::{Direction, KeyRange, Reads, Table};

use super::mark::Marks;
use crate::drive::{Drive, DriveError, PieceId};
use crate::pieces::rows::BlockRow;

/// Rows fetched at once.
const PAGE_ROWS: usize = 1024;
/// Living bytes that one look moves: a commit does not wait long for it, and the network is not filled with old things.
const MOVED_BYTES_MAX: u64 = 64 << 20;

/// A piece in which nothing lives.
#[derive(Default)]
pub(super) struct Dead {
    pub(super) raw_len: u64,
    pub(super) blocks: Vec<[u8; 32]>,
}

#[derive(Default)]
pub(super) struct Judged {
    pub(super) dead: BTreeMap<PieceId, Dead>,
    /// Pieces to be emptied, with the living blocks in them.
    pub(super) emptied: BTreeMap<PieceId, Vec<([u8; 32], BlockRow)>>,
    /// There are others like them.
    pub(super) more: bool,
}

struct Piece {
    raw_len: u64,
    live_bytes: u64,
}

impl Drive {
    pub(super) fn judge(&self, marks: &Marks, published: u64) -> Result<Judged, DriveError> {
        let mut pieces: BTreeMap<PieceId, Piece> = BTreeMap::new();
        self.inner.each_piece(|id, row| {
            // A piece that no commit names yet is a seal's; one of a commit that is not published is not judged yet.
            if !row.checkpoint && row.commit_sequence != 0 && row.commit_sequence <= published {
                pieces.insert(id, Piece { raw_len: row.raw_len, live_bytes: 0 });
            }
        })?;
        for gone in self.condemned()? {
            pieces.remove(&gone.piece);
        }
        self.each_block(|digest, row| {
            if let Some(piece) = pieces.get_mut(&row.piece).filter(|_| marks.has_block(&digest)) {
                piece.live_bytes += u64::from(row.len);
            }
        })?;
        let mut judged = Judged::default();
        let mut sparse = Vec::new();
        for (id, piece) in &pieces {
            if piece.live_bytes == 0 && !marks.has_piece(id) {
                judged.dead.insert(*id, Dead { raw_len: piece.raw_len, blocks: Vec::new() });
            } else if piece.live_bytes > 0 && piece.live_bytes <= piece.raw_len / 2 {
                sparse.push((piece.live_bytes, piece.raw_len, *id));
            }
        }
        self.choose(&mut judged, sparse);
        self.each_block(|digest, row| {
            if let Some(dead) = judged.dead.get_mut(&row.piece) {
                dead.blocks.push(digest);
            } else if let Some(blocks) =
                judged.emptied.get_mut(&row.piece).filter(|_| marks.has_block(&digest))
            {
                blocks.push((digest, row));
            }
        })?;
        Ok(judged)
    }

    /// Those that give most for what is moved, if it is worth a commit.
    fn choose(&self, judged: &mut Judged, mut sparse: Vec<(u64, u64, PieceId)>) {
        sparse.sort_by_key(|(live, raw, id)| (live.saturating_mul(1000) / (*raw).max(1), *id));
        let (mut moved, mut gained) = (0, 0);
        for (live, raw, id) in sparse {
            if moved + live > MOVED_BYTES_MAX {
                judged.more = true;
                break;
            }
            moved += live;
            gained += raw - live;
            judged.emptied.insert(id, Vec::new());
        }
        if gained < self.inner.parts.options.compact_gain_bytes_min {
            judged.emptied.clear();
            judged.more = false;
        }
    }

    fn each_block(&self, mut f: impl FnMut([u8; 32], BlockRow)) -> Result<(), DriveError> {
        let mut range = KeyRange::all();
        loop {
            let page = self.inner.parts.store.scan(Table::Block, &range, PAGE_ROWS, Direction::Forward)?;
            let last = page.len() < PAGE_ROWS;
            if let Some((key, _)) = page.last() {
                range = range.after(key.clone());
            }
            for (key, row) in page {
                let digest: [u8; 32] =
                    key.as_slice().try_into().map_err(|_| DriveError::damaged("block row", "its key"))?;
                f(digest, BlockRow::decode(&row)?);
            }
            if last {
                return Ok(());
            }
        }
    }
}
