//! Slots that a scrub found to be other bytes than they were signed for, and how far it is.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;

use holdfast_proofs::CommpHasher;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use super::{DealState, Entry, Outcome, Store, disk, storage};
use crate::codec;
use crate::deal::DealId;

const PROGRESS_BYTES_MAX: usize = 128;

/// How far a scrub is. Losing it only repeats a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::provider) struct Progress {
    /// The last slot that was read, in the order of their names; none at the beginning.
    pub(in crate::provider) after: Option<ByteArray<32>>,
    /// Unix seconds.
    pub(in crate::provider) began: u64,
    /// Every slot was read.
    pub(in crate::provider) over: bool,
    v: u8,
}

impl Progress {
    pub(in crate::provider) fn begin(now: u64) -> Progress {
        Progress { after: None, began: now, over: false, v: 1 }
    }
}

/// A stored slot that is being read.
pub(in crate::provider) struct Reading {
    file: File,
    hasher: CommpHasher,
    left: u64,
    entry: Entry,
}

/// What a part of it showed.
pub(in crate::provider) enum Part {
    /// So many bytes were read, and more are to come.
    More(Reading, u64),
    /// It is what it was signed for, or not, by the last so many bytes.
    Whole(bool, u64),
    /// It says nothing of the slot.
    Nothing,
}

impl Store {
    /// Stored slots in the order of their names, from behind `after`.
    pub(in crate::provider) fn to_scrub(&self, after: Option<DealId>) -> Vec<DealId> {
        let index = self.index.lock();
        let stored = index.deals.iter().filter(|(_, entry)| entry.state == DealState::Stored);
        let mut all: Vec<DealId> =
            stored.map(|(id, _)| *id).filter(|id| after.is_none_or(|at| *id > at)).collect();
        drop(index);
        all.sort_unstable();
        all
    }

    /// Begins to read a slot, from the disk and not from what memory has of it. Nothing where it is not kept any more.
    pub(in crate::provider) fn begin_reading(&self, id: &DealId) -> Option<Reading> {
        let entry = self.entry(id).filter(|entry| entry.state == DealState::Stored)?;
        let file = match File::open(self.slots.join(id.to_string())) {
            Ok(file) => file,
            Err(e) => {
                tracing::error!(deal = %id, "a slot that is to be read cannot be opened: {e}");
                return None;
            }
        };
        forget_pages(&file);
        Some(Reading { file, hasher: CommpHasher::new(), left: entry.raw_len, entry })
    }

    /// Writes down whether a slot is damaged. Whether that is new.
    pub(in crate::provider) fn mark(&self, id: &DealId, damaged: bool) -> Outcome<bool> {
        let path = self.damaged.join(id.to_string());
        let _one_at_a_time = self.rows.lock();
        let Some(entry) = self.entry(id).filter(|entry| entry.state == DealState::Stored) else {
            return Ok(false);
        };
        if entry.damaged == damaged {
            return Ok(false);
        }
        let written = match damaged {
            true => File::create(&path).and_then(|_| disk::sync_dir(&self.damaged)),
            false => disk::remove(&path),
        };
        // Without room for the mark it is known until the next start, and found again after it.
        let full = written.as_ref().is_err_and(disk::is_full);
        self.index.lock().change(id, |entry| entry.damaged = damaged);
        if full { Ok(true) } else { written.map(|()| true).map_err(|e| storage(&e)) }
    }

    /// How far the scrub was, as last written down.
    pub(in crate::provider) fn progress(&self) -> Option<Progress> {
        let bytes = disk::read_limited(&self.root.join("scrub"), PROGRESS_BYTES_MAX as u64).ok()?;
        codec::decode::<Progress>(&bytes, PROGRESS_BYTES_MAX).ok().filter(|progress| progress.v == 1)
    }

    pub(in crate::provider) fn set_progress(&self, progress: &Progress) -> Outcome<()> {
        disk::write_atomic(&self.root, "scrub", &codec::encode(progress)).map_err(|e| storage(&e))
    }
}

impl Reading {
    /// Reads and hashes so much more.
    pub(in crate::provider) fn more(mut self, buffer: &mut [u8]) -> Part {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..most) else { return Part::Nothing };
        match self.file.read_exact(part) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Part::Whole(false, most as u64),
            // What the disk does not give is not there.
            Err(e) if e.raw_os_error() == Some(nix::libc::EIO) => return Part::Whole(false, most as u64),
            Err(e) => {
                tracing::warn!("a slot could not be read: {e}");
                return Part::Nothing;
            }
        }
        self.hasher.update(part);
        self.left -= most as u64;
        if self.left > 0 {
            return Part::More(self, most as u64);
        }
        forget_pages(&self.file);
        Part::Whole(self.hasher.finish() == self.entry.piece, most as u64)
    }
}

/// A scrub shall neither be answered from memory, nor take the memory that readers' slots are in.
fn forget_pages(file: &File) {
    if let Err(e) = posix_fadvise(file.as_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED) {
        tracing::debug!("pages of a slot stay in memory: {e}");
    }
}
