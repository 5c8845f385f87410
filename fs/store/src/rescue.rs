//! Writing a segment anew after the medium failed under it.
//!
//! After a failed sync the kernel may have dropped the pages and the next sync of the same file would claim success. So the
//! file is not trusted with anything unsynced again: its durable part is copied into a new file, what was unsynced is added
//! from memory, that file is synced and takes the segment's name. Offsets, key and number stay, so every place row stays
//! true. On a full disk it gives up what is kept for that first. If any step fails, the store turns read-only.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::MutexGuard;

use crate::StoreError;
use crate::error::Result;
use crate::inner::{Inner, Log};
use crate::medium::{MediumFile, write_all_at};
use crate::segment::{self, HEADER_BYTES, Segment};

impl Inner {
    /// Writes a log segment anew. The caller is the one writer (`log.writing`).
    pub(crate) fn rescue(&self, log: &mut MutexGuard<'_, Log>, segment: &Arc<Segment>) -> Result<()> {
        debug_assert!(log.writing);
        self.rewrite(segment)
    }

    /// Writes a data segment anew, after those who are writing there are done.
    pub(crate) fn rescue_data(&self, segment: &Arc<Segment>) -> Result<()> {
        {
            let mut data = self.data.lock();
            if data.active.as_ref().is_some_and(|active| active.number() == segment.number()) {
                data.active = None;
            }
        }
        while segment.writers.load(Ordering::Acquire) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.rewrite(segment)
    }

    fn rewrite(&self, segment: &Arc<Segment>) -> Result<()> {
        let temporary = segment::new_name(segment.header.kind, segment.number());
        // The new file takes the room of a whole segment for a while.
        self.with_room(|| {
            segment::remove_quietly(&*self.medium, &temporary);
            let rewritten = self.rewrite_into(segment, &temporary);
            if rewritten.is_err() {
                segment::remove_quietly(&*self.medium, &temporary);
            }
            rewritten
        })
    }

    fn rewrite_into(&self, segment: &Arc<Segment>, temporary: &str) -> Result<()> {
        let name = segment.name();
        let failed = |op| {
            let name = name.clone();
            move |error| StoreError::io(op, &name, error)
        };
        let mut retained = segment.retained.lock();
        let unsynced_from = retained.iter().map(|run| run.offset).min().unwrap_or(segment.header.size);
        let old = segment.file();
        let file = self.medium.create(temporary).map_err(failed("create the new file"))?;
        copy(&*old, &*file, unsynced_from, segment.header.size).map_err(failed("copy the durable part"))?;
        for run in retained.iter() {
            write_all_at(&*file, &run.bytes, run.offset).map_err(failed("write the unsynced part"))?;
        }
        file.sync_data().map_err(failed("sync the new file"))?;
        self.medium.rename(temporary, &name).map_err(failed("name the new file"))?;
        self.medium.sync_dir().map_err(failed("sync the new name"))?;
        *segment.file.write() = file;
        let bytes: usize = retained.drain(..).map(|run| run.bytes.len()).sum();
        self.note_synced(bytes as u64);
        Ok(())
    }
}

/// Copies `old`. What lies from `unsynced_from` on is overwritten afterwards where it matters, so an error there is none.
fn copy(old: &dyn MediumFile, new: &dyn MediumFile, unsynced_from: u64, size: u64) -> std::io::Result<()> {
    let mut chunk = vec![0; 1 << 20];
    let end = old.len()?.min(size);
    let mut at = 0;
    while at < end {
        let len = (end - at).min(chunk.len() as u64) as usize;
        match old.read_at(&mut chunk[..len], at) {
            Ok(0) => break,
            Ok(read) => {
                write_all_at(new, &chunk[..read], at)?;
                at += read as u64;
            }
            Err(_) if at >= unsynced_from.max(HEADER_BYTES as u64) => at += len as u64,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
