//! Which rung a file or a folder stands on: the walk over its rows.
//!
//! Owns: `user.holdfast.durability`. Promises: never more than what holds for every byte below; an answer in bounded time, the whole drive's rung standing in
//! for a folder that is too large to walk. Refuses to guess: what cannot be read is at most Packed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock, Weak};

use holdfast_content::block::{CODEC_RAW, cid_from_digest};
use holdfast_content::retrieve::Priority;
use holdfast_store::{Lsn, Reads, Table};

use super::{Drive, DriveError, Inner, PieceId};
use crate::durability::Durability;
use crate::rows::{EntryRow, ExtentSource, Ino, InodeRow, Kind, ROOT_INO};
use crate::seal::commit_row::CommitRow;
use crate::snapshots::SnapshotSource;
use crate::vfs::{Hooks, Room, Space};

/// Rows fetched at once.
const PAGE_ROWS: usize = 1024;
/// Rows looked at for one answer, about a tenth of a second's work; larger folders and files get the whole drive's rung.
const ROWS_MAX: u64 = 50_000;

impl Drive {
    /// The rung of a path, from the drive's root.
    pub fn durability(&self, path: &str) -> Result<Durability, DriveError> {
        let rows = self.inner.parts.rows();
        let mut ino = ROOT_INO;
        for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
            let first = rows.names().first_slot(ino, name.as_bytes());
            let slots = rows.live().entries(ino, first, crate::rows::keys::TAG_SLOTS as usize)?;
            let found = slots.into_iter().find_map(|(_, row)| match row {
                EntryRow::Name { ino, name: found, .. } if found == name.as_bytes() => Some(ino),
                _ => None,
            });
            ino = found.ok_or(DriveError::Fs(crate::vfs::FsError::NotFound))?;
        }
        self.durability_of(ino)
    }

    /// The rung of an inode: a file's lowest, a folder's lowest of all below.
    pub fn durability_of(&self, ino: Ino) -> Result<Durability, DriveError> {
        Walk::new(&self.inner)?.rung(ino)
    }
}

/// One question's state.
struct Walk<'a> {
    inner: &'a Inner,
    /// The newest commit that a published head names, if this home knows it.
    published: Option<Arc<CommitRow>>,
    committed: Lsn,
    /// No file of the drive stands lower: a walk may end there.
    lowest: Durability,
    pieces: HashMap<PieceId, Durability>,
    rows: u64,
}

impl<'a> Walk<'a> {
    fn new(inner: &'a Inner) -> Result<Self, DriveError> {
        let published = match inner.source().and_then(|source| source.published_sequence()) {
            Some(sequence) => inner.parts.store.get(Table::Commit, &CommitRow::key(sequence))?,
            None => None,
        };
        let published = published.map(|row| CommitRow::decode(&row)).transpose()?.map(Arc::new);
        let latest = inner.latest();
        let lacks = latest.as_ref().is_some_and(|row| !row.info.pending.is_empty());
        let lowest = if lacks { Durability::Missing } else { Durability::Staged };
        let committed = latest.map_or(0, |row| row.cut());
        Ok(Self { inner, published, committed, lowest, pieces: HashMap::new(), rows: 0 })
    }

    fn rung(&mut self, ino: Ino) -> Result<Durability, DriveError> {
        let live = self.inner.parts.rows().live();
        let mut lowest: Option<Durability> = None;
        let mut folders = vec![ino];
        let mut seen = HashSet::new();
        let mut first = true;
        while let Some(at) = folders.pop() {
            // A folder is met once; a guard against damaged rows that form a ring.
            if !seen.insert(at) {
                continue;
            }
            let row = match live.inode(at)? {
                Some(row) => row,
                None if first => return Err(DriveError::Fs(crate::vfs::FsError::NotFound)),
                None => continue,
            };
            first = false;
            let rung = self.inode(at, &row)?;
            let now = lowest.map_or(rung, |low| low.lower(rung));
            if now <= self.lowest {
                return Ok(now);
            }
            lowest = Some(now);
            if row.kind == Kind::Dir {
                let mut from = 0;
                loop {
                    let page = live.entries(at, from, PAGE_ROWS)?;
                    let last = page.len() < PAGE_ROWS;
                    self.rows += page.len() as u64;
                    for (tag, entry) in page {
                        from = tag + 1;
                        if let EntryRow::Name { ino, .. } = entry {
                            folders.push(ino);
                        }
                    }
                    if last || self.rows > ROWS_MAX {
                        break;
                    }
                }
            }
            if self.rows > ROWS_MAX {
                let all = self.whole_drive()?;
                return Ok(lowest.map_or(all, |low| low.lower(all)));
            }
        }
        Ok(lowest.unwrap_or(Durability::Staged))
    }

    /// One inode without what is below it.
    fn inode(&mut self, ino: Ino, row: &InodeRow) -> Result<Durability, DriveError> {
        self.rows += 1;
        if row.lacks_data() {
            return Ok(Durability::Missing);
        }
        if row.lsn > self.committed {
            return Ok(Durability::Staged);
        }
        let mut lowest = self.name_rung(row.lsn);
        if row.kind != Kind::File {
            return Ok(lowest);
        }
        let live = self.inner.parts.rows().live();
        let extents = live.extents(ino, 0, PAGE_ROWS)?;
        // Zeros alone stand in no payload: they are in the commit as holes.
        if extents.iter().any(|(_, extent)| extent.source != ExtentSource::Zero) {
            return Ok(Durability::Staged);
        }
        let mut next = 0;
        while row.has_chunks() {
            let page = live.chunks(ino, next, u64::MAX, PAGE_ROWS)?;
            let last = page.len() < PAGE_ROWS;
            self.rows += page.len() as u64;
            for (n, chunk) in page {
                next = n + 1;
                lowest = lowest.lower(self.chunk(&chunk.digest)?);
            }
            if last {
                break;
            }
            if self.rows > ROWS_MAX {
                return Ok(lowest.lower(self.whole_drive()?));
            }
        }
        Ok(lowest)
    }

    /// What the commit that holds an inode's row is worth.
    fn name_rung(&mut self, lsn: Lsn) -> Durability {
        match self.published.clone() {
            Some(row) if lsn <= row.cut() => self.piece(row.info.commit.at.piece),
            _ => Durability::Packed,
        }
    }

    fn chunk(&mut self, digest: &[u8; 32]) -> Result<Durability, DriveError> {
        let blocks = &self.inner.parts.trees.blocks;
        let want = blocks.want(Priority::Interactive, self.inner.parts.options.fetch_deadline);
        match blocks.locate(&cid_from_digest(CODEC_RAW, digest), want) {
            Ok(Some(at)) => Ok(self.piece(at.piece)),
            Ok(None) => Ok(Durability::Staged),
            Err(error) if error.is_retryable() => Ok(Durability::Packed),
            Err(error) => Err(error),
        }
    }

    fn piece(&mut self, id: PieceId) -> Durability {
        let survive = self.inner.source();
        *self.pieces.entry(id).or_insert_with(|| {
            let known = survive.map(|source| source.piece(id)).unwrap_or_default();
            match (known.holders_counting.checked_sub(1), known.proven_at) {
                (None, _) => Durability::Packed,
                (Some(survives), Some(at)) => Durability::Proven { survives, at },
                (Some(survives), None) => Durability::Placed(survives),
            }
        })
    }

    /// The lowest rung of everything.
    fn whole_drive(&mut self) -> Result<Durability, DriveError> {
        if self.lowest == Durability::Missing && self.inner.lacks_data()? {
            return Ok(Durability::Missing);
        }
        if crate::seal::is_dirty(&self.inner.parts.store, self.committed)? {
            return Ok(Durability::Staged);
        }
        let newest = self.inner.latest().map(|row| row.info.sequence);
        if newest.is_none() || self.published.as_ref().map(|row| row.info.sequence) != newest {
            return Ok(Durability::Packed);
        }
        let mut ids = Vec::new();
        self.inner.each_piece(|id, row| {
            if !row.checkpoint {
                ids.push(id);
            }
        })?;
        let mut lowest: Option<Durability> = None;
        for id in ids {
            let rung = self.piece(id);
            lowest = Some(lowest.map_or(rung, |low| low.lower(rung)));
        }
        Ok(lowest.unwrap_or(Durability::Packed))
    }
}

/// What the file system asks of its drive.
#[derive(Default)]
pub(crate) struct DriveHooks {
    inner: OnceLock<Weak<Inner>>,
}

impl DriveHooks {
    /// The drive is whole now.
    pub(super) fn attach(&self, inner: &Arc<Inner>) {
        let _ = self.inner.set(Arc::downgrade(inner));
    }

    fn get(&self) -> Option<Arc<Inner>> {
        self.inner.get().and_then(Weak::upgrade)
    }
}

impl Hooks for DriveHooks {
    fn durability(&self, ino: Ino) -> Option<String> {
        let inner = self.get()?;
        let rung = Walk::new(&inner).and_then(|mut walk| walk.rung(ino));
        match rung {
            Ok(rung) => Some(rung.to_string()),
            Err(error) => {
                tracing::warn!(ino, %error, "no rung for an inode");
                None
            }
        }
    }

    fn space(&self) -> Space {
        match self.get() {
            Some(inner) => inner.gauge.space(inner.data_bytes(), inner.sent_bytes()),
            // Before the drive is whole: only its own recovery writes.
            None => Space { total: u64::MAX >> 1, free: u64::MAX >> 1 },
        }
    }

    fn snapshots(&self) -> Option<Arc<dyn SnapshotSource>> {
        let drive: Arc<dyn SnapshotSource> = Arc::new(Drive { inner: self.get()? });
        Some(drive)
    }

    fn is_paced(&self) -> bool {
        self.get().is_some_and(|inner| inner.parts.options.quota_bytes.is_some())
    }

    fn room(&self, bytes: u64) -> Room {
        let Some(inner) = self.get() else { return Room::Free };
        match inner.gauge.room(bytes, inner.sent_bytes()) {
            Room::None if inner.gauge.worth_waiting(inner.frees_room()) => Room::Waits,
            // What came free meanwhile.
            Room::None => inner.gauge.room(bytes, inner.sent_bytes()),
            room => room,
        }
    }
}
