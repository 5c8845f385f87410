//! Sync: what was written becomes durable.
//!
//! One thread at a time syncs for all who wait: first the data segments, then the log segments in order, then
//! `durable_lsn` moves. Whoever comes meanwhile shares the next round. What a round covered is let go from memory only
//! after it succeeded, so a failed one can be made good by writing the segment anew.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use crate::error::Result;
use crate::failpoint::failpoint;
use crate::inner::{Inner, Log};
use crate::segment::Segment;
use crate::{Lsn, StoreError};

impl Inner {
    /// Returns when record `up_to` and all below it are durable.
    pub(crate) fn sync(&self, up_to: Lsn) -> Result<()> {
        let mut log = self.log.lock();
        if log.durable_lsn >= up_to {
            return Ok(());
        }
        if up_to > log.last_lsn() {
            return Err(StoreError::UnknownLsn(up_to));
        }
        self.write_out(&mut log, up_to)?;
        while log.durable_lsn < up_to {
            log.check()?;
            if log.syncing {
                self.log_changed.wait(&mut log);
            } else {
                self.sync_round(&mut log)?;
            }
        }
        Ok(())
    }

    fn sync_round(&self, log: &mut MutexGuard<'_, Log>) -> Result<()> {
        log.syncing = true;
        let target = log.written_lsn;
        let logs = log.unsynced_logs.clone();
        let synced = MutexGuard::unlocked(log, || self.sync_files(&logs));
        log.syncing = false;
        match synced {
            Ok(()) => {
                log.durable_lsn = log.durable_lsn.max(target);
                let log = &mut **log;
                let (runs, active) = (&log.runs, &log.active);
                log.unsynced_logs.retain(|segment| {
                    segment.number() == active.number()
                        || runs.iter().any(|run| run.segment.number() == segment.number())
                        || !segment.retained.lock().is_empty()
                });
                self.syncs.fetch_add(1, Ordering::Relaxed);
                self.log_changed.notify_all();
                Ok(())
            }
            Err(error) => Err(self.fail(log, format!("a sync failed and could not be made good: {error}"))),
        }
    }

    fn sync_files(&self, logs: &[Arc<Segment>]) -> Result<()> {
        failpoint!(self.options.failpoints, "sync.before");
        let dirty = self.data.lock().dirty.clone();
        for segment in &dirty {
            self.sync_data_segment(segment)?;
        }
        if !dirty.is_empty() {
            let mut data = self.data.lock();
            data.dirty.retain(|segment| !segment.retained.lock().is_empty());
        }
        failpoint!(self.options.failpoints, "sync.data.done");
        for segment in logs {
            self.sync_log_segment(segment)?;
        }
        failpoint!(self.options.failpoints, "sync.log.done");
        Ok(())
    }

    fn sync_data_segment(&self, segment: &Arc<Segment>) -> Result<()> {
        let covered = segment.retained.lock().len();
        if covered == 0 {
            return Ok(());
        }
        match segment.file().sync_data() {
            Ok(()) => {
                let done: Vec<_> = segment.retained.lock().drain(..covered).collect();
                self.note_synced(done.iter().map(|run| run.bytes.len() as u64).sum());
                Ok(())
            }
            Err(error) => {
                self.note_failed_sync(segment, &error);
                self.rescue_data(segment)
            }
        }
    }

    fn sync_log_segment(&self, segment: &Arc<Segment>) -> Result<()> {
        // What is written while the sync runs may be a mark, which has no LSN of its own: only the place tells it apart.
        let through = match segment.retained.lock().iter().take_while(|run| run.written).last() {
            Some(run) => run.offset,
            None => return Ok(()),
        };
        match segment.file().sync_data() {
            Ok(()) => {
                failpoint!(self.options.failpoints, "sync.log.synced");
                let mut retained = segment.retained.lock();
                // A segment that was written anew meanwhile has nothing left of them.
                let covered = retained.partition_point(|run| run.offset <= through);
                let done: Vec<_> = retained.drain(..covered).collect();
                drop(retained);
                self.note_synced(done.iter().map(|run| run.bytes.len() as u64).sum());
                Ok(())
            }
            Err(error) => {
                self.note_failed_sync(segment, &error);
                let mut log = self.log.lock();
                while log.writing {
                    self.log_changed.wait(&mut log);
                }
                log.writing = true;
                let rescued = self.rescue(&mut log, segment);
                log.writing = false;
                self.log_changed.notify_all();
                rescued
            }
        }
    }

    pub(crate) fn note_synced(&self, bytes: u64) {
        self.unsynced.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn note_data_written(&self, segment: &Arc<Segment>, bytes: u64) {
        self.unsynced.fetch_add(bytes, Ordering::Relaxed);
        let mut data = self.data.lock();
        if !data.dirty.iter().any(|dirty| dirty.number() == segment.number()) {
            data.dirty.push(segment.clone());
        }
        drop(data);
        self.nudge();
    }

    fn note_failed_sync(&self, segment: &Segment, error: &std::io::Error) {
        self.syncs_failed.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(segment = segment.name(), %error, "a sync failed, writing the segment anew");
    }

    /// Called before anything is added: holds the caller while too much is unsynced or not in the index.
    pub(crate) fn make_room(&self) -> Result<()> {
        if self.unsynced.load(Ordering::Relaxed) > self.options.unsynced_bytes_max {
            self.sync_all()?;
        }
        let delta_max = DELTA_BACKLOG_MAX * self.options.flush_delta_bytes as u64;
        if self.delta_bytes.load(Ordering::Relaxed) > delta_max {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Syncs all that is written now, records or not.
    pub(crate) fn sync_all(&self) -> Result<()> {
        let mut log = self.log.lock();
        let last = log.last_lsn();
        self.write_out(&mut log, last)?;
        log.check()?;
        while log.syncing {
            self.log_changed.wait(&mut log);
            log.check()?;
        }
        self.sync_round(&mut log)
    }
}

/// Writers wait for the index when the delta holds so many times what starts a flush.
const DELTA_BACKLOG_MAX: u64 = 3;
