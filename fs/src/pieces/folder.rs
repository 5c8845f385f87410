//! The folder of piece files.
//!
//! Owns: names, opening, reading, finishing and removing of piece files on a [`StorageMedium`]. Promises: a finished piece's bytes and name are on
//! the medium before [`Folder::finish`] returns. Knows nothing of rows.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_content::block::PieceId;
use holdfast_store::{MediumFile, StorageMedium};
use parking_lot::{Mutex, MutexGuard};

use super::pins::{Pin, Pins};
use crate::drive::error::{DriveError, hex};

/// Open files that are kept: reading a big tree touches few pieces at a time.
const OPEN_FILES_MAX: usize = 64;
/// Written to the medium at once.
const WRITE_BUFFER_BYTES: usize = 1 << 20;
/// Read from the medium at once when a whole piece is walked.
const READ_BUFFER_BYTES: usize = 256 << 10;

/// Piece files on one medium.
pub(crate) struct Folder {
    medium: Arc<dyn StorageMedium>,
    open: Mutex<HashMap<PieceId, Arc<dyn MediumFile>>>,
    pins: Pins,
    /// Held while a piece's row is read, changed and written back.
    rows: Mutex<()>,
    local_bytes: AtomicU64,
}

/// A finished piece's file, open for reading. The piece is not evicted while this lives.
pub struct PieceFile {
    id: PieceId,
    file: Arc<dyn MediumFile>,
    len: u64,
    _pin: Pin,
}

impl PieceFile {
    /// The piece.
    pub fn id(&self) -> PieceId {
        self.id
    }

    /// Bytes of the file.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Fills `buf` from `offset` on; the end of the file before that is `UnexpectedEof`.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        read_exact_at(&*self.file, buf, offset)
    }

    /// The bytes from the beginning.
    pub fn reader(&self) -> impl Read + '_ {
        io::BufReader::with_capacity(READ_BUFFER_BYTES, FileReader { file: &*self.file, position: 0 })
    }
}

impl Folder {
    pub(crate) fn new(medium: Arc<dyn StorageMedium>) -> Self {
        Self {
            medium,
            open: Mutex::new(HashMap::new()),
            pins: Pins::default(),
            rows: Mutex::new(()),
            local_bytes: AtomicU64::new(0),
        }
    }

    /// What finished pieces take: exact after [`Folder::set_local_bytes`], and counted on from there.
    pub(crate) fn local_bytes(&self) -> u64 {
        self.local_bytes.load(Ordering::Relaxed)
    }

    /// As the rows have it.
    pub(crate) fn set_local_bytes(&self, bytes: u64) {
        self.local_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The pins of this folder's pieces.
    pub(crate) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Serializes changes of piece rows.
    pub(crate) fn rows_lock(&self) -> MutexGuard<'_, ()> {
        self.rows.lock()
    }

    /// Begins a piece under a temporary name.
    pub(crate) fn create(&self, id: PieceId) -> Result<TmpFile, DriveError> {
        let file = self.medium.create(&tmp_name(&id)).map_err(|source| piece_error("create", id, source))?;
        Ok(TmpFile { file, flushed: 0, buffer: Vec::with_capacity(WRITE_BUFFER_BYTES) })
    }

    /// Makes a written piece durable under its final name.
    pub(crate) fn finish(&self, id: PieceId, file: &TmpFile) -> Result<(), DriveError> {
        file.file.sync_data().map_err(|source| piece_error("sync", id, source))?;
        self.medium
            .rename(&tmp_name(&id), &final_name(&id))
            .and_then(|()| self.medium.sync_dir())
            .map_err(|source| piece_error("rename", id, source))?;
        self.local_bytes.fetch_add(file.flushed, Ordering::Relaxed);
        Ok(())
    }

    /// Puts a written file in the place of a finished piece's. Whoever has the old one open goes on reading that.
    pub(crate) fn replace(&self, id: PieceId, file: &TmpFile) -> Result<(), DriveError> {
        file.file.sync_data().map_err(|source| piece_error("sync", id, source))?;
        self.medium
            .rename(&tmp_name(&id), &final_name(&id))
            .and_then(|()| self.medium.sync_dir())
            .map_err(|source| piece_error("rename", id, source))?;
        self.open.lock().remove(&id);
        Ok(())
    }

    /// Drops an unfinished piece. What fails here is swept at the next start.
    pub(crate) fn abandon(&self, id: PieceId) {
        if let Err(error) = self.medium.remove(&tmp_name(&id)) {
            tracing::warn!(piece = hex(&id), %error, "an unfinished piece stays until the next start");
        }
    }

    /// Opens a finished piece for whoever reads all of it.
    pub(crate) fn open(&self, id: PieceId) -> Result<PieceFile, DriveError> {
        let pin = self.pins.pin(id);
        let file = self.handle(id)?;
        let len = file.len().map_err(|source| piece_error("stat", id, source))?;
        Ok(PieceFile { id, file, len, _pin: pin })
    }

    /// Reads a range of a finished piece.
    pub(crate) fn read(&self, id: PieceId, offset: u64, buf: &mut [u8]) -> Result<(), DriveError> {
        let file = self.handle(id)?;
        read_exact_at(&*file, buf, offset).map_err(|source| piece_error("read", id, source))
    }

    fn handle(&self, id: PieceId) -> Result<Arc<dyn MediumFile>, DriveError> {
        if let Some(file) = self.open.lock().get(&id) {
            return Ok(file.clone());
        }
        let file = self.medium.open(&final_name(&id)).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => DriveError::NotLocal(id),
            _ => piece_error("open", id, source),
        })?;
        let mut open = self.open.lock();
        if open.len() >= OPEN_FILES_MAX {
            // Any one will do: opening again costs microseconds.
            let victim = open.keys().next().copied();
            victim.and_then(|victim| open.remove(&victim));
        }
        open.insert(id, file.clone());
        Ok(file)
    }

    /// Removes a finished piece; one that is gone already is fine.
    pub(crate) fn remove(&self, id: PieceId) -> Result<(), DriveError> {
        self.open.lock().remove(&id);
        match self.medium.remove(&final_name(&id)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(piece_error("remove", id, source)),
            _ => Ok(()),
        }
    }

    /// What is in the folder.
    pub(crate) fn list(&self) -> Result<Listing, DriveError> {
        let names = self.medium.list().map_err(|source| DriveError::PieceFolder { op: "list", source })?;
        let mut listing = Listing::default();
        for name in names {
            match name.split_once('.') {
                Some((stem, "car")) => match parse_hex(stem) {
                    Some(id) => _ = listing.finished.insert(id),
                    None => listing.foreign.push(name),
                },
                Some((stem, "tmp")) if parse_hex(stem).is_some() => listing.unfinished.push(name),
                _ => listing.foreign.push(name),
            }
        }
        Ok(listing)
    }

    /// Removes leftovers by name: only at start, before anybody writes.
    pub(crate) fn sweep(&self, names: &[String]) -> Result<(), DriveError> {
        for name in names {
            self.medium
                .remove(name)
                .map_err(|source| DriveError::PieceFolder { op: "remove a leftover", source })?;
        }
        Ok(())
    }
}

/// Names found in the folder.
#[derive(Default)]
pub(crate) struct Listing {
    pub(crate) finished: BTreeSet<PieceId>,
    pub(crate) unfinished: Vec<String>,
    /// Not ours: left alone.
    pub(crate) foreign: Vec<String>,
}

/// A piece being written, buffered.
pub(crate) struct TmpFile {
    file: Arc<dyn MediumFile>,
    flushed: u64,
    buffer: Vec<u8>,
}

impl TmpFile {
    /// What was flushed, from the beginning.
    pub(crate) fn reader(&self) -> impl Read + '_ {
        io::BufReader::with_capacity(READ_BUFFER_BYTES, FileReader { file: &*self.file, position: 0 })
    }
}

impl Write for TmpFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_BUFFER_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let (mut rest, from) = (self.buffer.as_slice(), self.flushed);
        while !rest.is_empty() {
            let written = self.file.write_at(rest, self.flushed)?;
            rest = rest.get(written..).filter(|_| written > 0).ok_or(io::ErrorKind::WriteZero)?;
            self.flushed += written as u64;
        }
        // A piece that is synced whole at its end would hold up every fsync meanwhile.
        self.file.push(from, self.flushed - from);
        self.buffer.clear();
        Ok(())
    }
}

struct FileReader<'a> {
    file: &'a dyn MediumFile,
    position: u64,
}

impl Read for FileReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buf, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

fn read_exact_at(file: &dyn MediumFile, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        let read = file.read_at(buf, offset)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buf = buf.get_mut(read..).unwrap_or_default();
        offset += read as u64;
    }
    Ok(())
}

pub(crate) fn piece_error(op: &'static str, piece: PieceId, source: io::Error) -> DriveError {
    DriveError::Piece { op, piece, source }
}

fn final_name(id: &PieceId) -> String {
    format!("{}.car", hex(id))
}

fn tmp_name(id: &PieceId) -> String {
    format!("{}.tmp", hex(id))
}

fn parse_hex(text: &str) -> Option<PieceId> {
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return None;
    }
    Some(u128::from_str_radix(text, 16).ok()?.to_be_bytes())
}
