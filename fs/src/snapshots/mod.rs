//! Snapshots: the commits, as read-only trees.
//!
//! Owns: how a commit is named by people, the rows of kept names, and the file system over a commit's namespace tree. Promises: what is shown is
//! exactly the commit, whatever happened since; opening one reads its root and nothing else. Refuses every change.
//!
//! A snapshot is a [`Vfs`] over an empty store whose base is the commit's tree: the same code that shows a restored drive.
//!
//!     name ─► sequence ─► commit row ─► namespace tree ─► rows ─► Vfs          data: local pieces, else providers
//!
//!     snap/[name]    version u8 = 1 | sequence u64 BE            in the daemon's table

pub mod diff;
pub mod label;
pub mod shared;

use std::num::NonZeroUsize;
use std::sync::Arc;

use holdfast_store::{
    CrashMedium, Direction, IndexKind, KeyRange, Reads, Store, StoreKeys, StoreOptions, Table,
};
use lru::LruCache;
use parking_lot::Mutex;

use crate::drive::{Drive, DriveError, Jobs};
use crate::restore::CommitTree;
use crate::rows::{NameKey, Rows};
use crate::seal::commit_row::CommitRow;
use crate::vfs::{FsError, PlainHooks, Space, Vfs, VfsOptions};

/// Prefix of the keys of kept names.
const NAME: &[u8] = b"snap/";
const NAME_VERSION: u8 = 1;
/// Bytes of a kept name.
const NAME_BYTES_MAX: usize = 100;
/// Snapshots that stay open; opening one again reads its root.
const OPEN_MAX: NonZeroUsize = NonZeroUsize::new(4).unwrap();
/// Inodes that an open snapshot remembers.
const NODES_MAX: usize = 10_000;
/// Rows fetched at once.
const PAGE_ROWS: usize = 1024;

/// A commit as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Counts the drive's commits.
    pub sequence: u64,
    /// Unix seconds.
    pub time: u64,
    /// How it is listed: by its time.
    pub label: String,
    /// The commit's own name, as text.
    pub cid: String,
    /// Bytes of all files.
    pub bytes: u64,
    /// Kept under these.
    pub names: Vec<String>,
}

/// What is open. The part of a drive that this module owns.
pub(crate) struct Snapshots {
    open: Mutex<LruCache<u64, Arc<Vfs>>>,
    empty: Mutex<Option<Store>>,
    /// Held while names are given, and while commits without names go.
    names: Mutex<()>,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self { open: Mutex::new(LruCache::new(OPEN_MAX)), empty: Mutex::default(), names: Mutex::default() }
    }
}

impl Snapshots {
    /// A store that holds nothing and never will: what lies above a snapshot's rows.
    fn empty_store(&self, drive: &Drive) -> Result<Store, DriveError> {
        let mut empty = self.empty.lock();
        if let Some(store) = empty.as_ref() {
            return Ok(store.clone());
        }
        let options = StoreOptions {
            log_segment_bytes: 256 << 10,
            first_segment_bytes: 256 << 10,
            data_segment_bytes: 256 << 10,
            background: false,
            ..StoreOptions::default()
        };
        let ambient = &drive.inner.ambient;
        let (store, _) = Store::open(
            Arc::new(CrashMedium::new()),
            IndexKind::Memory,
            // Nothing is ever sealed under them.
            StoreKeys { log: [0; 32], index: [0; 32] },
            options,
            ambient.clock.clone(),
            ambient.store_rng.clone(),
        )?;
        *empty = Some(store.clone());
        Ok(store)
    }

    /// No name is given while this is held.
    pub(crate) fn hold_names(&self) -> parking_lot::MutexGuard<'_, ()> {
        self.names.lock()
    }

    /// No longer to be shown.
    pub(crate) fn close(&self, sequence: u64) {
        self.open.lock().pop(&sequence);
    }
}

impl Drive {
    /// All commits that this home knows, oldest first.
    pub fn snapshots(&self) -> Result<Vec<SnapshotInfo>, DriveError> {
        let kept = self.snapshot_names()?;
        let mut out: Vec<SnapshotInfo> = Vec::new();
        self.inner.each_commit(|row| {
            let time = row.info.time;
            let mut label = label::of_time(time);
            if out.last().is_some_and(|last| last.time == time) {
                label = format!("{label}-{}", row.info.sequence);
            }
            let of_it = kept.iter().filter(|(_, sequence)| *sequence == row.info.sequence);
            out.push(SnapshotInfo {
                sequence: row.info.sequence,
                time,
                label,
                cid: row.info.commit.root.to_string(),
                bytes: row.stats.bytes,
                names: of_it.map(|(name, _)| name.clone()).collect(),
            });
        })?;
        Ok(out)
    }

    /// The commit that a name stands for: a kept name, a time, a sequence, or the commit's CID.
    pub fn resolve_snapshot(&self, name: &str) -> Result<Option<u64>, DriveError> {
        let kept = self.snapshot_names()?;
        if let Some((_, sequence)) = kept.iter().find(|(known, _)| known == name) {
            return Ok(Some(*sequence));
        }
        if let Some(sequence) = sequence_of(name) {
            return Ok(self.inner.commit_row(sequence)?.map(|row| row.info.sequence));
        }
        let time = label::parse(name);
        let cid = cid::Cid::try_from(name).ok();
        if time.is_none() && cid.is_none() {
            return Ok(None);
        }
        let mut found = None;
        let mut first = None;
        self.inner.each_commit(|row| {
            let sequence = row.info.sequence;
            let same = match time {
                Some((at, Some(wanted))) => row.info.time == at && sequence == wanted,
                // The first of several in one second has the name without a sequence.
                Some((at, None)) => row.info.time == at && *first.get_or_insert(sequence) == sequence,
                None => cid == Some(row.info.commit.root),
            };
            if same {
                found = Some(sequence);
            }
        })?;
        Ok(found)
    }

    /// Keeps a commit under a name.
    pub fn name_snapshot(&self, name: &str, sequence: u64) -> Result<(), DriveError> {
        if !is_name(name) {
            return Err(DriveError::Fs(FsError::Invalid));
        }
        let _names = self.inner.snapshots.hold_names();
        let Some(row) = self.inner.commit_row(sequence)? else {
            return Err(DriveError::Fs(FsError::NotFound));
        };
        let mut value = vec![NAME_VERSION];
        value.extend_from_slice(&row.info.sequence.to_be_bytes());
        let jobs = self.jobs();
        if jobs.get(&[NAME, name.as_bytes()].concat())?.is_some() {
            return Err(DriveError::Fs(FsError::Exists));
        }
        jobs.commit(&[([NAME, name.as_bytes()].concat(), Some(value))])
    }

    /// Keeps it no longer under that name. `false`: there was no such name.
    pub fn forget_snapshot_name(&self, name: &str) -> Result<bool, DriveError> {
        let (jobs, key) = (self.jobs(), [NAME, name.as_bytes()].concat());
        let known = jobs.get(&key)?.is_some();
        if known {
            jobs.commit(&[(key, None)])?;
        }
        Ok(known)
    }

    /// Kept names and their commits.
    pub fn snapshot_names(&self) -> Result<Vec<(String, u64)>, DriveError> {
        let jobs: Jobs = self.jobs();
        let mut names = Vec::new();
        for (key, value) in jobs.scan(NAME)? {
            let damaged = || DriveError::damaged("snapshot name", "its row");
            let name =
                key.get(NAME.len()..).and_then(|name| std::str::from_utf8(name).ok()).ok_or_else(damaged)?;
            let sequence = match value.split_first() {
                Some((&NAME_VERSION, rest)) => {
                    rest.try_into().map(u64::from_be_bytes).map_err(|_| damaged())?
                }
                _ => return Err(damaged()),
            };
            names.push((name.to_owned(), sequence));
        }
        Ok(names)
    }

    /// The file system as of a commit, read-only.
    pub fn snapshot_vfs(&self, sequence: u64) -> Result<Arc<Vfs>, DriveError> {
        let snapshots = &self.inner.snapshots;
        if let Some(vfs) = snapshots.open.lock().get(&sequence) {
            return Ok(vfs.clone());
        }
        let row = self.inner.commit_row(sequence)?.ok_or(DriveError::Fs(FsError::NotFound))?;
        let parts = &self.inner.parts;
        let tree = CommitTree::new(parts.trees.clone(), &row);
        let names = NameKey::new(*parts.keys.name_tag.as_bytes());
        let rows = Rows::new(snapshots.empty_store(self)?, names, Some(Arc::new(tree)));
        let options =
            VfsOptions { read_only: true, no_atime: true, nodes_max: NODES_MAX, ..VfsOptions::default() };
        let hooks = Arc::new(PlainHooks { space: Space { total: 0, free: 0 } });
        let vfs = Vfs::open(rows, parts.chunks.clone(), hooks, parts.now.clone(), options)?;
        let vfs = Arc::new(vfs);
        snapshots.open.lock().put(sequence, vfs.clone());
        Ok(vfs)
    }
}

impl crate::drive::Inner {
    pub(crate) fn commit_row(&self, sequence: u64) -> Result<Option<CommitRow>, DriveError> {
        let row = self.parts.store.get(Table::Commit, &CommitRow::key(sequence))?;
        row.map(|row| CommitRow::decode(&row)).transpose()
    }

    /// All commit rows, oldest first.
    pub(crate) fn each_commit(&self, mut f: impl FnMut(CommitRow)) -> Result<(), DriveError> {
        let mut range = KeyRange::all();
        loop {
            let page = self.parts.store.scan(Table::Commit, &range, PAGE_ROWS, Direction::Forward)?;
            let last = page.len() < PAGE_ROWS;
            if let Some((key, _)) = page.last() {
                range = range.after(key.clone());
            }
            for (_, row) in page {
                f(CommitRow::decode(&row)?);
            }
            if last {
                return Ok(());
            }
        }
    }
}

/// `7`, without signs or leading zeros.
fn sequence_of(name: &str) -> Option<u64> {
    let sequence: u64 = name.parse().ok()?;
    (sequence.to_string() == name).then_some(sequence)
}

/// Whether a snapshot may be kept under this name: no path, nothing that means a time, a sequence or a CID already.
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with(['.', '-'])
        && !name.contains(['/', '\0', '\n'])
        && sequence_of(name).is_none()
        && label::parse(name).is_none()
        && cid::Cid::try_from(name).is_err()
}

/// What the FUSE edge needs of a drive to show `.snapshots`.
pub trait SnapshotSource: Send + Sync {
    /// The commit that a name stands for.
    fn resolve(&self, name: &str) -> Result<u64, FsError>;
    /// Labels and sequences, oldest first.
    fn list(&self) -> Result<Vec<(String, CommitName)>, FsError>;
    /// The tree.
    fn open(&self, sequence: u64) -> Result<Arc<Vfs>, FsError>;
}

/// A listed commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitName {
    /// Counts the drive's commits.
    pub sequence: u64,
    /// Unix seconds.
    pub time: u64,
}

impl SnapshotSource for Drive {
    fn resolve(&self, name: &str) -> Result<u64, FsError> {
        self.resolve_snapshot(name).map_err(fs_error)?.ok_or(FsError::NotFound)
    }

    fn list(&self) -> Result<Vec<(String, CommitName)>, FsError> {
        let all = self.snapshots().map_err(fs_error)?;
        let named = |at: SnapshotInfo| (at.label, CommitName { sequence: at.sequence, time: at.time });
        Ok(all.into_iter().map(named).collect())
    }

    fn open(&self, sequence: u64) -> Result<Arc<Vfs>, FsError> {
        self.snapshot_vfs(sequence).map_err(fs_error)
    }
}

fn fs_error(error: DriveError) -> FsError {
    match error {
        DriveError::Fs(error) => error,
        DriveError::Row(error) => error.into(),
        DriveError::Fetch(_) => FsError::TimedOut,
        other => FsError::Damaged(other.to_string()),
    }
}
