//! Retention: which commits stay, and how what only others reached is given up.
//!
//! Owns: the rule ([`rule`]), what is reached (`mark`), what becomes of each piece (`judge`), emptying those that are mostly dead (`compact`), and the
//! rows of condemned pieces. Promises: a piece is condemned only when nothing that any kept commit, the published head, the present namespace or an open
//! file reaches lies in it; between being condemned and being forgotten there is a grace period. Refuses to judge pieces of which this home has no rows (a
//! restored drive keeps what it found), and never forgets what was not condemned.
//! What private links show stays as well, whatever commit it was of; while that is not known nothing is condemned.
//!
//!     rule ─► commit rows go ─► mark from what is kept ─► condemn: its blocks' rows go, a row says when ─► grace ─► forget: its row, its file, its copies
//!                                                     └─► compact: what lives in a mostly dead piece is written anew, a commit says where
//!
//! Orderings that *must* hold: a commit's row goes before anything is judged without it; marking, condemning and compaction happen while no seal runs, so
//! that no seal has found a block that is condemned meanwhile; a block whose row is gone is written anew, never referenced; an emptied piece is condemned
//! by a later look only, when the published head's location tree does not look for anything in it. Each of these is one record of the log, and a crash
//! between two of them repeats a look.
//!
//!     gone/ | piece 16      version u8 = 1 | condemned at u64 BE, unix seconds | newest commit's sequence then u64 BE

mod compact;
mod judge;
mod mark;
pub mod rule;

use std::collections::BTreeSet;

use holdfast_store::{Table, Txn};

use self::mark::Marks;
use crate::drive::{Drive, DriveError, PieceId};
use crate::pieces::classes;
use crate::seal::commit_row::CommitRow;
use rule::RetentionRule;

/// Prefix of condemned pieces' keys in the daemon's table.
const GONE: &[u8] = b"gone/";
const GONE_VERSION: u8 = 1;
/// Block rows that one record removes.
const TXN_ROWS: usize = 8192;

/// A piece that nothing reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condemned {
    /// Which.
    pub piece: PieceId,
    /// Unix seconds.
    pub at: u64,
    /// The newest commit at that time: a published head at or above it reaches nothing of the piece.
    pub sequence: u64,
}

impl Condemned {
    /// Bytes at rest; the piece is the key.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = vec![GONE_VERSION];
        value.extend_from_slice(&self.at.to_be_bytes());
        value.extend_from_slice(&self.sequence.to_be_bytes());
        value
    }

    pub(crate) fn decode(piece: PieceId, value: &[u8]) -> Option<Self> {
        let (at, sequence) = value.strip_prefix(&[GONE_VERSION])?.split_first_chunk()?;
        let (at, sequence) = (u64::from_be_bytes(*at), u64::from_be_bytes(sequence.try_into().ok()?));
        Some(Self { piece, at, sequence })
    }
}

/// What one look came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Commits that are no longer kept.
    pub commits: u64,
    /// Pieces that nothing reaches any more.
    pub pieces: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of living blocks that were written anew, so that their pieces can go.
    pub moved_bytes: u64,
    /// There are more pieces to empty: look again when the moved blocks are published.
    pub more: bool,
}

impl Drive {
    /// Drops the commits that `rule` does not keep at `now` (unix seconds), and condemns what only they reached.
    ///
    /// Commits from the published one on stay, and those that are kept under a name. Without a published head nothing goes.
    pub fn prune(&self, rule: &RetentionRule, now: u64) -> Result<Pruned, DriveError> {
        let mut pruned = Pruned::default();
        let source = self.inner.source();
        let Some(published) = source.as_ref().and_then(|source| source.published_sequence()) else {
            return Ok(pruned);
        };
        pruned.commits = self.drop_commits(rule, now, published)?;
        // Much is read before seals are held up; what came since is little.
        let mut marks = Marks::default();
        marks.kept_commits(&self.inner)?;
        let mut state = self.inner.hold_seals();
        self.follow_commits(published)?;
        marks.kept_commits(&self.inner)?;
        // After the commits: what is being shared is held by its commit until it is listed here.
        let Some(shared) = source.and_then(|source| source.shared_blocks()) else {
            return Ok(pruned);
        };
        marks.shared(&shared);
        // In this order: who copies out of a deleted file before it is closed is seen by the second.
        marks.open_orphans(&self.inner)?;
        self.inner.parts.options.edges.hit("prune.orphans.after");
        marks.present(&self.inner)?;
        marks.locations(&self.inner, published)?;
        let judged = self.judge(&marks, published)?;
        let latest = self.inner.latest().map_or(0, |row| row.info.sequence);
        for (piece, dead) in &judged.dead {
            let gone = Condemned { piece: *piece, at: now, sequence: latest };
            self.condemn(gone, &dead.blocks)?;
            pruned.pieces += 1;
            pruned.bytes += dead.raw_len;
        }
        // What is moved is placed and published before more is.
        if published == latest {
            let compacted = self.compact(&mut state, &marks, judged)?;
            pruned.moved_bytes = compacted.moved_bytes;
            pruned.more = compacted.more;
        } else {
            pruned.more = !judged.emptied.is_empty();
        }
        Ok(pruned)
    }

    fn drop_commits(&self, rule: &RetentionRule, now: u64, published: u64) -> Result<u64, DriveError> {
        let _names = self.inner.snapshots.hold_names();
        let mut always: BTreeSet<u64> =
            self.snapshot_names()?.into_iter().map(|(_, sequence)| sequence).collect();
        let mut commits = Vec::new();
        self.inner.each_commit(|row| commits.push((row.info.sequence, row.info.time)))?;
        always.extend(commits.iter().map(|(sequence, _)| *sequence).filter(|at| *at >= published));
        // Where newer ones lack files' data, heads name it.
        always.extend(self.inner.complete_commit()?.map(|row| row.info.sequence));
        let kept = rule.kept(&commits, now, &always);
        let dropped: Vec<u64> =
            commits.into_iter().map(|(sequence, _)| sequence).filter(|at| !kept.contains(at)).collect();
        for part in dropped.chunks(TXN_ROWS) {
            let mut txn = Txn::new();
            for sequence in part {
                txn.delete(Table::Commit, CommitRow::key(*sequence));
                self.inner.snapshots.close(*sequence);
            }
            let lsn = self.inner.parts.store.commit(txn)?;
            self.inner.parts.store.sync(lsn)?;
            self.inner.parts.options.edges.hit("prune.commits.after");
        }
        Ok(dropped.len() as u64)
    }

    /// Removes the rows of a piece's blocks, so that nothing refers to them any more, and says so. Seals are held.
    fn condemn(&self, gone: Condemned, blocks: &[[u8; 32]]) -> Result<(), DriveError> {
        let store = &self.inner.parts.store;
        let mut txn = Txn::new();
        for digest in blocks {
            if txn.len() >= TXN_ROWS {
                // In part condemned, a piece is judged again by the next look.
                store.commit(std::mem::take(&mut txn))?;
            }
            txn.delete(Table::Block, digest);
        }
        txn.put(Table::Jobs, gone_key(gone.piece), gone.encode());
        let lsn = store.commit(txn)?;
        store.sync(lsn)?;
        self.inner.parts.options.edges.hit("condemn.after");
        Ok(())
    }

    /// Pieces that wait for the end of their grace period, or for their copies to be given up.
    pub fn condemned(&self) -> Result<Vec<Condemned>, DriveError> {
        let damaged = || DriveError::damaged("condemned piece", "its row");
        let mut out = Vec::new();
        for (key, value) in self.jobs().scan(GONE)? {
            let piece = key.get(GONE.len()..).and_then(|id| id.try_into().ok()).ok_or_else(damaged)?;
            out.push(Condemned::decode(piece, &value).ok_or_else(damaged)?);
        }
        Ok(out)
    }

    /// Forgets a condemned piece: its row first, then its file. Its copies elsewhere are the caller's to give up, before
    /// [`Drive::forgotten`].
    pub fn forget_piece(&self, piece: PieceId) -> Result<(), DriveError> {
        let inner = &*self.inner;
        let store = &inner.parts.store;
        if self.jobs().get(&gone_key(piece))?.is_none() {
            return Err(DriveError::NotEvictable { piece, reason: "it is not condemned" });
        }
        let forget = inner.parts.folder.pins().unless_pinned(piece, || {
            let _guard = inner.parts.folder.rows_lock();
            let mut txn = Txn::new();
            txn.delete(Table::Piece, piece);
            classes::delete(&mut txn, &piece);
            let lsn = store.commit(txn)?;
            store.sync(lsn)?;
            inner.parts.options.edges.hit("forget.row.after");
            inner.parts.folder.remove(piece)
        });
        match forget {
            Some(result) => result?,
            None => return Err(DriveError::NotEvictable { piece, reason: "its file is being read" }),
        }
        inner.recount_pieces()
    }

    /// The last word about a piece: nobody keeps a copy any more that this drive answers for.
    pub fn forgotten(&self, piece: PieceId) -> Result<(), DriveError> {
        self.jobs().commit(&[(gone_key(piece), None)])
    }
}

fn gone_key(piece: PieceId) -> Vec<u8> {
    [GONE, &piece].concat()
}
