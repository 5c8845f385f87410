//! Opening a home: the normal start, and the start on an empty home from a commit.
//!
//! Owns: the order of recovery. Promises: leftovers of a crash are removed before anything is written, never a piece that a row names; a drive that was
//! attached once falls through to its commit at every later start. Refuses: to attach a home that is not empty.
//!
//!     store (log, index) ─► latest commit row ─► trees, base ─► VFS ─► leftover pieces swept, uncommitted ones noted

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwapOption;
use holdfast_content::commit::{Commit, CommitRef};
use holdfast_content::keys::DriveKeys;
use holdfast_content::retrieve::{Priority, Retriever};
use holdfast_store::{
    Direction, IndexKind, KeyRange, Reads, RealMedium, StorageMedium, Store, StoreKeys, Table, Txn,
};
use parking_lot::Mutex;

use super::space::SpaceGauge;
use super::types::{DriveOptions, PieceId, RestorePoint};
use super::walk::DriveHooks;
use super::{Activity, Ambient, Drive, DriveError, Inner};
use crate::pieces::blocks::BlockReader;
use crate::pieces::chunks::Chunks;
use crate::pieces::folder::Folder;
use crate::pieces::places::Places;
use crate::restore::{CommitTree, LocationRoot, Trees};
use crate::rows::{BaseTree, NameKey, Rows, marks};
use crate::seal::commit_row::CommitRow;
use crate::seal::{SealParts, SealState, UNLISTED};
use crate::vfs::{Vfs, VfsOptions};

/// `meta`: this drive began as a restored one; rows that are not here are in the newest commit's tree.
const META_HAS_BASE: &[u8] = b"drive.has_base";
/// Folders of a home.
const LOG_FOLDER: &str = "log";
const INDEX_FOLDER: &str = "index";
const PIECES_FOLDER: &str = "pieces";

/// Where a drive's parts lie. [`Home::at`] is the normal one; tests put them on other media.
pub struct Home {
    /// Log and data segments.
    pub log: Arc<dyn StorageMedium>,
    /// The index.
    pub index: IndexKind,
    /// Piece files.
    pub pieces: Arc<dyn StorageMedium>,
    /// Whose disk `df` tells of.
    pub disk: Option<PathBuf>,
}

impl Home {
    /// The folders of a home on the machine's file system, made where they are missing.
    pub fn at(path: &Path) -> Result<Self, DriveError> {
        Ok(Self {
            log: Arc::new(RealMedium::open(path.join(LOG_FOLDER))?),
            index: IndexKind::Rocks(path.join(INDEX_FOLDER)),
            pieces: Arc::new(RealMedium::open(path.join(PIECES_FOLDER))?),
            disk: Some(path.to_owned()),
        })
    }
}

impl Drive {
    /// Opens the drive of a home, or makes a new, empty one in an empty home.
    pub fn open(
        home: &Path,
        keys: Arc<DriveKeys>,
        store_keys: StoreKeys,
        options: DriveOptions,
        vfs_options: VfsOptions,
        retriever: Arc<dyn Retriever>,
        ambient: Ambient,
    ) -> Result<Self, DriveError> {
        Self::open_on(Home::at(home)?, keys, store_keys, options, vfs_options, retriever, ambient)
    }

    /// Opens an empty home as the drive that a commit shows. Nothing is fetched but the commit's own block.
    #[allow(clippy::too_many_arguments)]
    pub fn attach(
        home: &Path,
        keys: Arc<DriveKeys>,
        store_keys: StoreKeys,
        options: DriveOptions,
        vfs_options: VfsOptions,
        point: RestorePoint,
        retriever: Arc<dyn Retriever>,
        ambient: Ambient,
    ) -> Result<Self, DriveError> {
        Self::attach_on(Home::at(home)?, keys, store_keys, options, vfs_options, point, retriever, ambient)
    }

    /// [`Drive::open`] on any media.
    pub fn open_on(
        home: Home,
        keys: Arc<DriveKeys>,
        store_keys: StoreKeys,
        options: DriveOptions,
        vfs_options: VfsOptions,
        retriever: Arc<dyn Retriever>,
        ambient: Ambient,
    ) -> Result<Self, DriveError> {
        let begun = Begun::new(home, keys, store_keys, options, retriever, ambient)?;
        begun.finish(vfs_options)
    }

    /// [`Drive::attach`] on any media.
    #[allow(clippy::too_many_arguments)]
    pub fn attach_on(
        home: Home,
        keys: Arc<DriveKeys>,
        store_keys: StoreKeys,
        options: DriveOptions,
        vfs_options: VfsOptions,
        point: RestorePoint,
        retriever: Arc<dyn Retriever>,
        ambient: Ambient,
    ) -> Result<Self, DriveError> {
        let begun = Begun::new(home, keys, store_keys, options, retriever, ambient)?;
        begun.attach(&point)?;
        begun.finish(vfs_options)
    }
}

/// A drive whose store is open and whose file system is not.
struct Begun {
    store: Store,
    report: holdfast_store::RecoveryReport,
    folder: Arc<Folder>,
    blocks: Arc<BlockReader>,
    trees: Arc<Trees>,
    keys: Arc<DriveKeys>,
    options: DriveOptions,
    ambient: Ambient,
    disk: Option<PathBuf>,
}

impl Begun {
    fn new(
        home: Home,
        keys: Arc<DriveKeys>,
        store_keys: StoreKeys,
        options: DriveOptions,
        retriever: Arc<dyn Retriever>,
        ambient: Ambient,
    ) -> Result<Self, DriveError> {
        let (store, report) = Store::open(
            home.log,
            home.index,
            store_keys,
            options.store.clone(),
            ambient.clock.clone(),
            ambient.store_rng.clone(),
        )?;
        let folder = Arc::new(Folder::new(home.pieces));
        let blocks = Arc::new(BlockReader::new(
            store.clone(),
            folder.clone(),
            retriever,
            ambient.clock.clone(),
            options.node_cache_bytes_max,
        ));
        let trees =
            Arc::new(Trees::new(&keys, blocks.clone(), options.tree_cache_bytes_max, options.fetch_deadline));
        Ok(Self { store, report, folder, blocks, trees, keys, options, ambient, disk: home.disk })
    }

    /// Notes the commit that the empty store stands on.
    fn attach(&self, point: &RestorePoint) -> Result<(), DriveError> {
        // A restore that was interrupted left a commit without a cut of this log: it is attached again.
        if self.latest()?.is_some_and(|row| row.cut() != 0) {
            return Err(DriveError::Limit("this home holds a drive already".to_owned()));
        }
        let commit = self.commit(&point.commit)?;
        let mut txn = Txn::new();
        let lacking = commit.pending_files;
        if let Some(complete) = point.complete.as_ref().filter(|_| lacking > 0) {
            match self.commit(complete) {
                Ok(older) if older.sequence < commit.sequence => {
                    txn.put(
                        Table::Commit,
                        CommitRow::key(older.sequence),
                        row_of(point, complete, older).encode()?,
                    );
                }
                Ok(_) => {
                    tracing::warn!("the commit that the head calls complete is not older than the newest one")
                }
                Err(error) => tracing::warn!(%error, "the newest complete commit is not among the snapshots"),
            }
        }
        if lacking > 0 {
            tracing::warn!(
                files = lacking,
                "files had not been sealed when the commit was made: they are there, and reading them fails"
            );
        }
        let sequence = commit.sequence;
        txn.put(Table::Commit, CommitRow::key(sequence), row_of(point, &point.commit, commit).encode()?);
        txn.put(Table::Meta, META_HAS_BASE, vec![1]);
        let lsn = self.store.commit(txn)?;
        Ok(self.store.sync(lsn)?)
    }

    fn commit(&self, at: &CommitRef) -> Result<Commit, DriveError> {
        let want = self.blocks.want(Priority::Interactive, self.options.fetch_deadline);
        let block = self.blocks.read_at(&at.at, want)?;
        Commit::decode(&block, &at.key, &self.keys).map_err(|error| DriveError::damaged("commit", error))
    }

    fn latest(&self) -> Result<Option<CommitRow>, DriveError> {
        let page = self.store.scan(Table::Commit, &KeyRange::all(), 1, Direction::Reverse)?;
        page.first().map(|(_, row)| CommitRow::decode(row)).transpose()
    }

    fn finish(self, vfs_options: VfsOptions) -> Result<Drive, DriveError> {
        let latest = self.latest()?;
        let cut = latest.as_ref().map_or(0, CommitRow::cut);
        if self.store.read_only().is_none() {
            let moved = marks::migrate(&self.store, cut)?;
            if moved > 0 {
                tracing::info!(moved, "marks of changes were brought into this version's layout");
            }
        }
        // A commit covers all up to its cut; what is marked is beyond.
        let dirty = marks::any(&self.store, cut)?;
        let location_root = latest.as_ref().map(|row| row.info.location_root.clone());
        let location = Arc::new(LocationRoot::new(&self.trees, location_root));
        let base: Option<Arc<dyn BaseTree>> = match (&latest, self.store.get(Table::Meta, META_HAS_BASE)?) {
            (Some(row), Some(_)) => {
                self.blocks.set_locator(location.clone());
                Some(Arc::new(CommitTree::new(self.trees.clone(), row)))
            }
            _ => None,
        };
        let rows = Rows::new(self.store.clone(), NameKey::new(*self.keys.name_tag.as_bytes()), base);
        if dirty {
            rows.note_marked(self.store.last_lsn());
        }
        let chunks = Arc::new(Chunks::new(
            self.blocks.clone(),
            self.options.chunk_cache_bytes_max,
            self.options.fetch_deadline,
        ));
        let hooks = Arc::new(DriveHooks::default());
        let vfs = Vfs::open(rows, chunks.clone(), hooks.clone(), self.ambient.now.clone(), vfs_options)?;
        let vfs = Arc::new(vfs);
        // Of what is fetched ahead of one reader nothing is to be pushed out before he comes, also where a few others read.
        let window_bytes = self.options.chunk_cache_bytes_max as u64 / 4;
        if let Err(error) = vfs.read_ahead(self.options.readahead_threads, window_bytes) {
            tracing::warn!(%error, "nothing is fetched ahead of readers: no thread can be had");
        }
        let gauge = SpaceGauge::new(
            self.store.clone(),
            self.folder.clone(),
            self.ambient.clock.clone(),
            self.disk,
            &self.options,
        );
        let inner = Inner {
            parts: SealParts {
                store: self.store,
                vfs,
                folder: self.folder,
                chunks,
                trees: self.trees,
                keys: self.keys,
                options: self.options,
                haste: Default::default(),
                now: self.ambient.now.clone(),
                rng: self.ambient.rng.clone(),
            },
            ambient: self.ambient,
            report: self.report,
            state: Mutex::new(SealState::default()),
            settled: AtomicU64::new(cut),
            latest: ArcSwapOption::from_pointee(latest.clone()),
            location,
            source: ArcSwapOption::empty(),
            activity: Mutex::new(Activity::default()),
            gauge,
            pinned: Mutex::default(),
            snapshots: Default::default(),
        };
        let pieces = inner.recover_pieces()?;
        *inner.state.lock() = SealState { last: latest, placed: Places::of_pieces(pieces.clone()), pieces };
        inner.recount_pieces()?;
        let inner = Arc::new(inner);
        hooks.attach(&inner);
        Ok(Drive { inner })
    }
}

/// A commit that another device made, as a row of this home.
fn row_of(point: &RestorePoint, at: &CommitRef, commit: Commit) -> CommitRow {
    let mut pending = commit.pending;
    if commit.pending_files > pending.len() as u64 {
        pending.insert(0, UNLISTED);
    }
    let info = super::CommitInfo {
        sequence: commit.sequence,
        // LSNs number the records of one log, and this one has none yet.
        cut: 0,
        commit: at.clone(),
        location_root: point.location_root.clone(),
        new_pieces: Vec::new(),
        pending,
        time: commit.time_ms / 1000,
    };
    CommitRow { info, namespace: commit.namespace, stats: commit.stats }
}

impl Inner {
    /// Removes what a crash left. Gives the pieces that were written without a commit, oldest first.
    fn recover_pieces(&self) -> Result<Vec<PieceId>, DriveError> {
        let folder = &self.parts.folder;
        let mut listing = folder.list()?;
        let mut uncommitted = Vec::new();
        let mut evicted = Vec::new();
        self.each_piece(|id, row| {
            let present = listing.finished.remove(&id);
            if row.local && !present {
                tracing::error!(piece = super::error::hex(&id), "a local piece's file is missing");
            }
            if !row.local && present {
                evicted.push(id);
            }
            if row.commit_sequence == 0 && !row.checkpoint && present {
                uncommitted.push((row.created, id));
            }
        })?;
        if self.parts.store.read_only().is_none() {
            folder.sweep(&listing.unfinished)?;
            for id in listing.finished.iter().chain(&evicted) {
                folder.remove(*id)?;
            }
        }
        uncommitted.sort_unstable();
        Ok(uncommitted.into_iter().map(|(_, id)| id).collect())
    }
}
