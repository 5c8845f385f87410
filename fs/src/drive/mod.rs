//! `Drive`: one home folder's log, index and pieces as the daemon sees them.
//!
//! Owns: opening, closing and wiring of store, VFS, chunk source and sealing. Promises: what `seal` returned is durable;
//! nothing is evicted that is not placed; a crash at any point repeats at most one step. Refuses: a second opener of the same
//! home (the log's lock), a piece id that it does not know, eviction without a `DurabilitySource`.
//!
//!     open ──► mount ──► (FUSE serves) ──► dirty()? ──► seal() ──► pieces()/open_piece() ──► daemon places ──► evict_piece()
//!     attach(RestorePoint) ──► the same, the tree and the chunks coming through the Retriever as they are read
//!
//! All methods take `&self`, and `Drive` is a cheap clone (an `Arc`). `seal`, `sync_all`, `evict_piece`, `put_checkpoint_piece`,
//! `durability` and `check` may block for long and belong on a thread of their own; everything else returns promptly.

pub mod activity;
pub mod ambient;
pub mod edges;
pub mod error;
pub mod evict;
pub mod heal;
pub mod hold;
pub mod jobs;
mod open;
pub(crate) mod scan;
mod space;
pub mod types;
mod walk;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use holdfast_content::block::{Block, BlockAt};
use holdfast_content::retrieve::Priority;
use holdfast_store::{Direction, KeyRange, Lsn, Reads, RecoveryReport, Store, Table};
use parking_lot::{Mutex, MutexGuard};

pub use self::ambient::Ambient;
pub use self::edges::Edges;
pub use self::error::DriveError;
pub use self::hold::{Holding, PinInfo};
pub use self::jobs::Jobs;
pub use self::open::Home;
pub use self::types::{
    CommitInfo, DirtyState, DriveOptions, DriveUsage, DurabilitySource, PieceDurability, PieceId, PieceInfo,
    Pressure, RestorePoint,
};
pub use crate::durability::Durability;
pub use crate::pieces::PieceFile;

use self::activity::Activity;
use self::space::SpaceGauge;
use crate::pieces::rows::PieceRow;
use crate::restore::{CommitTree, LocationRoot};
use crate::rows::InodeRow;
use crate::rows::marks::ChangedKeys;
use crate::seal::commit_row::CommitRow;
use crate::seal::{self, SealParts, SealState, Sealed};
use crate::snapshots::Snapshots;
use crate::vfs::Vfs;

/// Rows fetched at once.
const PAGE_ROWS: usize = 1024;

/// A drive. Clones are handles of the same one.
#[derive(Clone)]
pub struct Drive {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) parts: SealParts,
    pub(crate) ambient: Ambient,
    report: RecoveryReport,
    /// One seal at a time.
    state: Mutex<SealState>,
    /// Records up to here hold nothing that a seal would put into a commit.
    settled: AtomicU64,
    /// The newest commit, for readers that must not wait for a seal.
    latest: ArcSwapOption<CommitRow>,
    location: Arc<LocationRoot>,
    source: ArcSwapOption<Arc<dyn DurabilitySource>>,
    activity: Mutex<Activity>,
    gauge: SpaceGauge,
    pinned: Mutex<hold::Pinned>,
    pub(crate) snapshots: Snapshots,
}

impl Drive {
    /// What opening found.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.inner.report
    }

    /// Why the log takes no changes any more, if it does not: damage, or a disk that failed.
    pub fn read_only(&self) -> Option<String> {
        self.inner.parts.store.read_only()
    }

    /// The file system, for whoever mounts it or drives it offline.
    pub fn vfs(&self) -> &Arc<Vfs> {
        &self.inner.parts.vfs
    }

    /// The store beneath: its figures and failures.
    pub fn store(&self) -> &Store {
        &self.inner.parts.store
    }

    /// What a seal would put into a commit.
    pub fn dirty(&self) -> Result<DirtyState, DriveError> {
        let inner = &*self.inner;
        let settled = inner.settled.load(Ordering::Acquire);
        let marked = inner.parts.rows().marked_lsn();
        let now = inner.ambient.clock.now();
        let mut activity = inner.activity.lock();
        activity.note(marked, now);
        if marked <= settled {
            return Ok(DirtyState::default());
        }
        let mut changed = ChangedKeys::of_table(&inner.parts.store, settled, Table::Inode)?;
        let mut inodes = 0;
        while inodes < DirtyState::INODES_COUNTED_MAX && changed.next()?.is_some() {
            inodes += 1;
        }
        Ok(DirtyState {
            oldest_change_age: Some(activity.age(settled + 1, now)),
            newest_change_age: Some(activity.age(marked, now)),
            bytes: inner.parts.store.usage().live_payload_bytes,
            inodes,
        })
    }

    /// Makes a commit of everything up to now. `None`: nothing had changed since the last one.
    ///
    /// When it returns, the commit, its pieces and their rows are on disk.
    pub fn seal(&self) -> Result<Option<CommitInfo>, DriveError> {
        let inner = &*self.inner;
        let mut state = inner.state.lock();
        let sealed = seal::seal(&inner.parts, &mut state);
        inner.parts.haste.set(false);
        inner.parts.let_go_of_log()?;
        inner.recount_pieces()?;
        match sealed? {
            Sealed::Committed(row) => {
                inner.adopt(&row);
                inner.settle(row.cut());
                seal::sweep(&inner.parts, row.cut())?;
                Ok(Some(row.info))
            }
            Sealed::Unchanged(swept) => {
                if let Some(cut) = swept {
                    inner.settle(cut);
                    seal::sweep(&inner.parts, cut)?;
                }
                Ok(None)
            }
        }
    }

    /// Does a writer wait for room, and how much is there?
    pub fn pressure(&self) -> Pressure {
        let gauge = &self.inner.gauge;
        gauge.look(self.inner.sent_bytes());
        Pressure { waiting: gauge.is_pressed(), free_bytes: gauge.free() }
    }

    /// Somebody waits: the seal that runs, or the next one, takes what it needs of the processor instead of what nobody else wants.
    pub fn hurry(&self) {
        self.inner.parts.haste.set(true);
    }

    /// The newest commit.
    pub fn latest_commit(&self) -> Result<Option<CommitInfo>, DriveError> {
        Ok(self.inner.latest.load_full().map(|row| row.info.clone()))
    }

    /// The newest commit that lacks no file's data.
    pub fn complete_commit(&self) -> Result<Option<CommitInfo>, DriveError> {
        let newest = self.latest_commit()?.filter(|commit| commit.pending.is_empty());
        match newest {
            Some(commit) => Ok(Some(commit)),
            None => Ok(self.inner.complete_commit()?.map(|row| row.info)),
        }
    }

    /// How many files of the newest commit lack data that is here: a later seal tries them again.
    pub fn unsealed_files(&self) -> Result<usize, DriveError> {
        Ok(self.inner.pending_files()?.iter().filter(|row| !row.lacks_data()).count())
    }

    /// Commits with a higher sequence, in order.
    pub fn commits_after(&self, sequence: u64) -> Result<Vec<CommitInfo>, DriveError> {
        let mut range = KeyRange::from(CommitRow::key(sequence.saturating_add(1)));
        let mut out = Vec::new();
        loop {
            let page = self.inner.parts.store.scan(Table::Commit, &range, PAGE_ROWS, Direction::Forward)?;
            let last = page.len() < PAGE_ROWS;
            if let Some((key, _)) = page.last() {
                range = range.after(key.clone());
            }
            for (_, row) in page {
                out.push(CommitRow::decode(&row)?.info);
            }
            if last {
                return Ok(out);
            }
        }
    }

    /// All finished pieces, oldest first.
    pub fn pieces(&self) -> Result<Vec<PieceInfo>, DriveError> {
        let mut pieces = Vec::new();
        self.inner.each_piece(|id, row| pieces.push(piece_info(id, &row)))?;
        pieces.sort_by_key(|piece| (piece.created, piece.commit_sequence, piece.id));
        Ok(pieces)
    }

    /// One piece.
    pub fn piece(&self, id: PieceId) -> Result<Option<PieceInfo>, DriveError> {
        Ok(self.inner.piece_row(id)?.map(|row| piece_info(id, &row)))
    }

    /// A local piece's file. The piece is not evicted while it is open.
    pub fn open_piece(&self, id: PieceId) -> Result<PieceFile, DriveError> {
        let row = self.inner.piece_row(id)?.ok_or(DriveError::UnknownPiece(id))?;
        if !row.local {
            return Err(DriveError::NotLocal(id));
        }
        self.inner.parts.folder.open(id)
    }

    /// A block by its place: from a local piece, else by the Retriever; verified.
    pub fn read_block(&self, at: &BlockAt) -> Result<Block, DriveError> {
        let blocks = &self.inner.parts.trees.blocks;
        blocks.read_at(at, blocks.want(Priority::Bulk, self.inner.parts.options.fetch_deadline))
    }

    /// The daemon's own rows.
    pub fn jobs(&self) -> Jobs {
        Jobs(self.inner.parts.store.clone())
    }

    /// Tells the drive what the network holds.
    pub fn set_durability_source(&self, source: Arc<dyn DurabilitySource>) {
        self.inner.source.store(Some(Arc::new(source)));
    }

    /// Room taken.
    pub fn usage(&self) -> Result<DriveUsage, DriveError> {
        let store = self.inner.parts.store.usage();
        let mut usage = DriveUsage {
            log_bytes: store.disk_bytes,
            staged_bytes: store.live_payload_bytes,
            unsynced_bytes: store.unsynced_bytes,
            quota_bytes: self.inner.parts.options.quota_bytes,
            ..DriveUsage::default()
        };
        self.inner.each_piece(|_, row| {
            usage.piece_bytes_total += row.raw_len;
            usage.pieces_total += 1;
            if row.local {
                usage.piece_bytes_local += row.raw_len;
                usage.pieces_local += 1;
            }
        })?;
        Ok(usage)
    }

    /// On return everything that was answered before is on disk.
    pub fn sync_all(&self) -> Result<(), DriveError> {
        Ok(self.inner.parts.vfs.sync_all()?)
    }

    /// Syncs and brings the index up to date. The mount must be gone; other handles fail from then on.
    pub fn close(self) -> Result<(), DriveError> {
        self.inner.parts.vfs.sync_all()?;
        // A seal in progress ends first.
        let _state = self.inner.state.lock();
        Ok(self.inner.parts.store.clone().close()?)
    }
}

impl Inner {
    pub(crate) fn latest_cut(&self) -> u64 {
        self.latest.load().as_ref().map_or(0, |row| row.cut())
    }

    /// The files that the newest commit calls pending and that are still there, as they are now.
    fn pending_files(&self) -> Result<Vec<InodeRow>, DriveError> {
        let Some(latest) = self.latest() else { return Ok(Vec::new()) };
        let live = self.parts.rows().live();
        let rows = latest.info.pending.iter().map(|ino| Ok(live.inode(*ino)?));
        rows.filter_map(Result::transpose).collect()
    }

    /// Whether there are files whose data is in no commit, nor here.
    fn lacks_data(&self) -> Result<bool, DriveError> {
        Ok(self.pending_files()?.iter().any(InodeRow::lacks_data))
    }

    /// The newest commit's row that lacks no file's data.
    pub(crate) fn complete_commit(&self) -> Result<Option<CommitRow>, DriveError> {
        let mut range = KeyRange::all();
        loop {
            let page = self.parts.store.scan(Table::Commit, &range, 1, Direction::Reverse)?;
            let Some((key, row)) = page.into_iter().next() else { return Ok(None) };
            let row = CommitRow::decode(&row)?;
            if row.info.pending.is_empty() {
                return Ok(Some(row));
            }
            range = KeyRange::between([], key);
        }
    }

    /// Whether what was deleted is about to free room, which from now on is hastened.
    fn frees_room(&self) -> bool {
        self.parts.vfs.hasten_reclaim() || self.parts.store.want_room()
    }

    fn settle(&self, cut: Lsn) {
        self.settled.fetch_max(cut, Ordering::AcqRel);
        self.activity.lock().forget(cut);
    }

    /// No seal runs while this is held.
    pub(crate) fn hold_seals(&self) -> MutexGuard<'_, SealState> {
        self.state.lock()
    }

    pub(crate) fn latest(&self) -> Option<Arc<CommitRow>> {
        self.latest.load_full()
    }

    pub(crate) fn source(&self) -> Option<Arc<dyn DurabilitySource>> {
        self.source.load_full().map(|source| (*source).clone())
    }

    /// Bytes of the files of the newest commit, and what is staged beyond.
    fn data_bytes(&self) -> u64 {
        let committed = self.latest.load().as_ref().map_or(0, |row| row.stats.bytes);
        committed.saturating_add(self.parts.store.usage().live_payload_bytes)
    }

    fn sent_bytes(&self) -> u64 {
        self.source.load().as_ref().map_or(0, |source| source.sent_bytes())
    }

    /// Makes a new commit the one that reads fall through to.
    pub(crate) fn adopt(&self, row: &CommitRow) {
        self.location.set(row.info.location_root.clone());
        if self.parts.rows().has_base() {
            let base = CommitTree::new(self.parts.trees.clone(), row);
            self.parts.rows().set_base(Some(Arc::new(base)));
        }
        self.latest.store(Some(Arc::new(row.clone())));
    }

    pub(crate) fn piece_row(&self, id: PieceId) -> Result<Option<PieceRow>, DriveError> {
        let row = self.parts.store.get(Table::Piece, &id)?;
        Ok(row.map(|row| PieceRow::decode(&row)).transpose()?)
    }

    pub(crate) fn each_piece(&self, mut f: impl FnMut(PieceId, PieceRow)) -> Result<(), DriveError> {
        let mut range = KeyRange::all();
        loop {
            let page = self.parts.store.scan(Table::Piece, &range, PAGE_ROWS, Direction::Forward)?;
            let last = page.len() < PAGE_ROWS;
            if let Some((key, _)) = page.last() {
                range = range.after(key.clone());
            }
            for (key, row) in page {
                let id = PieceId::try_from(key.as_slice())
                    .map_err(|_| DriveError::damaged("piece row", "its key"))?;
                f(id, PieceRow::decode(&row)?);
            }
            if last {
                return Ok(());
            }
        }
    }

    pub(crate) fn recount_pieces(&self) -> Result<(), DriveError> {
        let mut bytes = 0;
        self.each_piece(|_, row| bytes += if row.local { row.raw_len } else { 0 })?;
        self.parts.folder.set_local_bytes(bytes);
        self.gauge.expire();
        Ok(())
    }
}

fn piece_info(id: PieceId, row: &PieceRow) -> PieceInfo {
    PieceInfo {
        id,
        raw_len: row.raw_len,
        local: row.local,
        commit_sequence: row.commit_sequence,
        created: row.created,
        checkpoint: row.checkpoint,
    }
}

impl std::fmt::Debug for Drive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Drive(cut {})", self.inner.latest_cut())
    }
}
