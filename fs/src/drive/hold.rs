//! Which pieces hold a folder's data, and which folders' data stays here.
//!
//! Owns: pins (rows of the daemon's table under `pin/`) and the way back of a piece that was evicted. Promises: a pinned folder's pieces are not evicted;
//! a piece that comes back is read whole and every block of it verified before its row says "local". A pin goes with its inode, whatever its name
//! becomes, and is this machine's own: another one that restores the drive does not have it.
//!
//!     pin[ino u64 BE]    version u8 = 1 | the path as it was given, for people

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Read, Write};
use std::sync::Arc;

use holdfast_content::block::{CODEC_RAW, cid_from_digest};
use holdfast_content::car::PieceReader;
use holdfast_content::retrieve::Priority;
use holdfast_store::{Table, Txn};

use super::{Drive, DriveError, Inner, PieceId};
use crate::pieces::folder::TmpFile;
use crate::pieces::rows::PieceRow;
use crate::rows::{EntryRow, ExtentSource, Ino, Kind};

/// Rows fetched at once.
const PAGE_ROWS: usize = 1024;
/// Prefix of the pins' keys.
const PIN: &[u8] = b"pin/";
/// Of a pin's value.
const PIN_VERSION: u8 = 1;

/// Where the data below an inode lies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holding {
    /// Pieces, and how many bytes of blocks of this data lie in each.
    pub pieces: BTreeMap<PieceId, u64>,
    /// Files with data that is still in the log alone.
    pub staged_files: u64,
}

/// A pinned file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinInfo {
    /// Which.
    pub ino: Ino,
    /// The path as it was given, for people.
    pub path: String,
}

/// The pieces of everything pinned, as of a commit and a state of the pins.
#[derive(Default)]
pub(super) struct Pinned {
    known: Option<(u64, Vec<Ino>)>,
    pieces: Arc<HashSet<PieceId>>,
}

impl Drive {
    /// The pieces that hold the data of a file, or of all files below a folder. Walks them all.
    pub fn holding(&self, ino: Ino) -> Result<Holding, DriveError> {
        self.inner.holding(ino)
    }

    /// Keeps the data of `ino`, now and later, in the home folder.
    pub fn pin(&self, ino: Ino, path: &str) -> Result<(), DriveError> {
        if self.inner.parts.rows().live().inode(ino)?.is_none() {
            return Err(DriveError::Fs(crate::vfs::FsError::NotFound));
        }
        let mut value = vec![PIN_VERSION];
        value.extend_from_slice(path.as_bytes());
        self.jobs().commit(&[(pin_key(ino), Some(value))])
    }

    /// Ends that. `false`: it was not pinned.
    pub fn unpin(&self, ino: Ino) -> Result<bool, DriveError> {
        let jobs = self.jobs();
        let known = jobs.get(&pin_key(ino))?.is_some();
        if known {
            jobs.commit(&[(pin_key(ino), None)])?;
        }
        Ok(known)
    }

    /// Everything that is pinned.
    pub fn pins(&self) -> Result<Vec<PinInfo>, DriveError> {
        self.inner.pins()
    }

    /// Pieces that a pin keeps, or wants back.
    pub fn pinned_pieces(&self) -> Result<Arc<HashSet<PieceId>>, DriveError> {
        self.inner.pinned_pieces()
    }

    /// Takes a piece's bytes back into the home folder: `read(offset, buf)` fills `buf` from the piece's bytes.
    ///
    /// Each block is verified on its way; on disk when this returns.
    pub fn bring_back(
        &self,
        id: PieceId,
        raw_len: u64,
        read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    ) -> Result<(), DriveError> {
        let inner = &*self.inner;
        let parts = &inner.parts;
        let old = inner.piece_row(id)?;
        if old.is_some_and(|row| row.local) {
            return Ok(());
        }
        let mut tmp = parts.folder.create(id)?;
        let blocks = copy_verified(id, raw_len, read, &mut tmp).and_then(|blocks| {
            parts.folder.finish(id, &tmp)?;
            Ok(blocks)
        });
        let blocks = blocks.inspect_err(|_| parts.folder.abandon(id))?;
        let lsn = {
            // Whoever forgets a piece, or evicts it, reads and writes its row under this lock, too.
            let _guard = parts.folder.rows_lock();
            let row = match (inner.piece_row(id)?, old) {
                (Some(row), _) => PieceRow { local: true, ..row },
                // Forgotten meanwhile.
                (None, Some(_)) => {
                    parts.folder.remove(id)?;
                    inner.recount_pieces()?;
                    return Err(DriveError::UnknownPiece(id));
                }
                // Of a restored drive, which knows its pieces by their blocks' places.
                (None, None) => PieceRow {
                    local: true,
                    checkpoint: false,
                    raw_len,
                    created: parts.now_ms() / 1000,
                    commit_sequence: inner.latest().map_or(0, |row| row.info.sequence),
                    blocks,
                },
            };
            let mut txn = Txn::new();
            txn.put(Table::Piece, id, row.encode());
            parts.store.commit(txn)?
        };
        parts.store.sync(lsn)?;
        inner.recount_pieces()
    }
}

impl Inner {
    fn holding(&self, ino: Ino) -> Result<Holding, DriveError> {
        let live = self.parts.rows().live();
        let mut found = Holding::default();
        let mut todo = vec![ino];
        let mut seen = HashSet::new();
        let mut first = true;
        while let Some(at) = todo.pop() {
            // Files with several names, and damaged rows that form a ring, are met once.
            if !seen.insert(at) {
                continue;
            }
            let row = match live.inode(at)? {
                Some(row) => row,
                None if first => return Err(DriveError::Fs(crate::vfs::FsError::NotFound)),
                None => continue,
            };
            first = false;
            match row.kind {
                Kind::Dir => {
                    let mut from = 0;
                    loop {
                        let page = live.entries(at, from, PAGE_ROWS)?;
                        let last = page.len() < PAGE_ROWS;
                        for (tag, entry) in page {
                            from = tag + 1;
                            if let EntryRow::Name { ino, .. } = entry {
                                todo.push(ino);
                            }
                        }
                        if last {
                            break;
                        }
                    }
                }
                Kind::File => self.file_holding(at, row.has_chunks(), &mut found)?,
                _ => {}
            }
        }
        Ok(found)
    }

    fn file_holding(&self, ino: Ino, has_chunks: bool, found: &mut Holding) -> Result<(), DriveError> {
        let live = self.parts.rows().live();
        let extents = live.extents(ino, 0, PAGE_ROWS)?;
        let staged = extents.iter().any(|(_, extent)| extent.source != ExtentSource::Zero);
        found.staged_files += u64::from(staged);
        let blocks = &self.parts.trees.blocks;
        if !has_chunks {
            return Ok(());
        }
        let mut next = 0;
        loop {
            let page = live.chunks(ino, next, u64::MAX, PAGE_ROWS)?;
            let last = page.len() < PAGE_ROWS;
            for (n, chunk) in page {
                next = n + 1;
                let want = blocks.want(Priority::Bulk, self.parts.options.fetch_deadline);
                if let Some(at) = blocks.locate(&cid_from_digest(CODEC_RAW, &chunk.digest), want)? {
                    *found.pieces.entry(at.piece).or_default() += u64::from(at.len);
                }
            }
            if last {
                return Ok(());
            }
        }
    }

    fn pins(&self) -> Result<Vec<PinInfo>, DriveError> {
        let jobs = super::Jobs(self.parts.store.clone());
        let damaged = |why: &str| DriveError::damaged("pin", why);
        let mut pins = Vec::new();
        for (key, value) in jobs.scan(PIN)? {
            let ino = key.get(PIN.len()..).and_then(|rest| rest.try_into().ok()).map(Ino::from_be_bytes);
            let ino = ino.ok_or_else(|| damaged("its key"))?;
            let path = match value.split_first() {
                Some((&PIN_VERSION, path)) => String::from_utf8_lossy(path).into_owned(),
                _ => return Err(damaged("its version")),
            };
            pins.push(PinInfo { ino, path });
        }
        Ok(pins)
    }

    /// Walks what is pinned when there is a new commit or another pin; from memory otherwise.
    pub(super) fn pinned_pieces(&self) -> Result<Arc<HashSet<PieceId>>, DriveError> {
        let inos: Vec<Ino> = self.pins()?.into_iter().map(|pin| pin.ino).collect();
        let now = (self.latest().map_or(0, |row| row.info.sequence), inos);
        let mut pinned = self.pinned.lock();
        if pinned.known.as_ref() != Some(&now) {
            let mut pieces = HashMap::new();
            for ino in &now.1 {
                match self.holding(*ino) {
                    Ok(found) => pieces.extend(found.pieces),
                    // Deleted: its pin has nothing to keep.
                    Err(DriveError::Fs(crate::vfs::FsError::NotFound)) => {}
                    Err(error) => return Err(error),
                }
            }
            pinned.pieces = Arc::new(pieces.into_keys().collect());
            pinned.known = Some(now);
        }
        Ok(pinned.pieces.clone())
    }
}

fn pin_key(ino: Ino) -> Vec<u8> {
    [PIN, &ino.to_be_bytes()].concat()
}

/// Copies a piece into `tmp`, verifying its blocks; how many there were.
fn copy_verified(
    id: PieceId,
    raw_len: u64,
    read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    tmp: &mut TmpFile,
) -> Result<u32, DriveError> {
    let damaged = |error| DriveError::damaged("piece", error);
    let mut blocks = 0;
    {
        let tee = Tee { read, at: 0, len: raw_len, tmp };
        let mut reader = PieceReader::new(tee, id).map_err(damaged)?;
        while reader.next_block().map_err(damaged)?.is_some() {
            blocks += 1;
        }
    }
    tmp.flush().map_err(|source| DriveError::Piece { op: "write", piece: id, source })?;
    Ok(blocks)
}

/// Reads a piece's bytes and writes what was read.
struct Tee<'a, F> {
    read: F,
    at: u64,
    len: u64,
    tmp: &'a mut TmpFile,
}

impl<F: FnMut(u64, &mut [u8]) -> io::Result<()>> Read for Tee<'_, F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.len.saturating_sub(self.at);
        let n = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let Some(part) = buf.get_mut(..n).filter(|part| !part.is_empty()) else { return Ok(0) };
        (self.read)(self.at, part)?;
        self.tmp.write_all(part)?;
        self.at += n as u64;
        Ok(n)
    }
}
