//! The store's threads: one keeps the log synced, one keeps the index near it, one has the disk begin with what will be synced.
//!
//! They are apart because a flush of the index may take seconds and a dirty log must not wait for it. Everything that the first two do is
//! also a plain method (`Store::tick`), so that tests run without them; what the third does changes nothing but how long a sync takes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::Result;
use crate::inner::{Inner, Mode};
use crate::medium::MediumFile;
use crate::record::RecordKind;
use crate::segment::Kind;

/// Wakes the threads.
#[derive(Default)]
pub(crate) struct Bell {
    state: Mutex<Rung>,
    condvar: Condvar,
    written: Mutex<Written>,
    more_written: Condvar,
}

/// Bytes of files that were written and that the disk may begin with.
#[derive(Default)]
struct Written {
    parts: Vec<(Arc<dyn MediumFile>, u64, u64)>,
    stop: bool,
}

/// More parts than this do not wait to be pushed: the disk has enough to do.
const PUSHED_PARTS_MAX: usize = 64;

#[derive(Default)]
struct Rung {
    sync: bool,
    index: bool,
    stop: bool,
}

/// Ends the threads when the last handle of the store goes.
pub(crate) struct Workers {
    bell: Arc<Bell>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Workers {
    pub(crate) fn start(inner: &Arc<Inner>) -> std::io::Result<Workers> {
        let workers = Workers { bell: inner.bell.clone(), threads: Mutex::new(Vec::new()) };
        if inner.options.background && inner.log.lock().mode == Mode::Normal {
            let syncer = inner.clone();
            let follower = inner.clone();
            let interval = inner.options.sync_interval;
            workers.spawn("store-sync", move || {
                run(&syncer, interval, |rung| &mut rung.sync, Inner::sync_tick)
            })?;
            workers.spawn("store-index", move || {
                run(&follower, interval, |rung| &mut rung.index, Inner::index_tick)
            })?;
            let bell = inner.bell.clone();
            workers.spawn("store-push", move || push_written(&bell))?;
        }
        Ok(workers)
    }

    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        self.threads.lock().push(std::thread::Builder::new().name(name.to_owned()).spawn(body)?);
        Ok(())
    }

    pub(crate) fn stop(&self) {
        self.bell.state.lock().stop = true;
        self.bell.condvar.notify_all();
        self.bell.written.lock().stop = true;
        self.bell.more_written.notify_all();
        for thread in self.threads.lock().drain(..) {
            // A worker that panicked has said so already.
            let _ = thread.join();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(inner: &Inner, interval: Duration, flag: fn(&mut Rung) -> &mut bool, tick: fn(&Inner) -> Result<()>) {
    loop {
        {
            let mut rung = inner.bell.state.lock();
            if !rung.stop && !*flag(&mut rung) {
                inner.bell.condvar.wait_for(&mut rung, interval);
            }
            if rung.stop {
                return;
            }
            *flag(&mut rung) = false;
        }
        if let Err(error) = tick(inner) {
            tracing::debug!(%error, "background work of the store");
        }
    }
}

/// Who brings bulk must not stand in the disk's queue for it, and neither must who serves requests: a thread of its own does.
fn push_written(bell: &Bell) {
    loop {
        let parts = {
            let mut written = bell.written.lock();
            while written.parts.is_empty() && !written.stop {
                bell.more_written.wait(&mut written);
            }
            if written.stop {
                return;
            }
            std::mem::take(&mut written.parts)
        };
        for (file, offset, len) in parts {
            file.push(offset, len);
        }
    }
}

impl Inner {
    /// Has the disk begin with bulk that was just written: an fsync of something small waits for all of it that is not there yet.
    pub(crate) fn push(&self, file: &Arc<dyn MediumFile>, offset: u64, len: u64) {
        if !self.options.background {
            return;
        }
        let mut written = self.bell.written.lock();
        if written.parts.len() < PUSHED_PARTS_MAX {
            written.parts.push((file.clone(), offset, len));
            self.bell.more_written.notify_one();
        }
    }

    /// Wakes a thread if there is more to do than may wait for its interval.
    pub(crate) fn nudge(&self) {
        let sync = self.unsynced.load(Ordering::Relaxed) > self.options.unsynced_bytes_push;
        let index = self.delta_bytes.load(Ordering::Relaxed) > self.options.flush_delta_bytes as u64;
        if !(sync || index) || !self.options.background {
            return;
        }
        let mut rung = self.bell.state.lock();
        rung.sync |= sync;
        rung.index |= index;
        self.bell.condvar.notify_all();
    }

    /// Has the index looked after now.
    pub(crate) fn ring_for_index(&self) {
        self.bell.state.lock().index = true;
        self.bell.condvar.notify_all();
    }

    /// Syncs a dirty log; says so in the log once it is idle.
    pub(crate) fn sync_tick(&self) -> Result<()> {
        let dirty = {
            let log = self.log.lock();
            log.check()?;
            log.durable_lsn < log.last_lsn()
        };
        if dirty || self.unsynced.load(Ordering::Relaxed) > self.options.unsynced_bytes_push {
            self.sync_all()?;
        }
        self.write_mark(RecordKind::Mark)
    }

    /// Prepares the next log segment, brings the index after the log, retires dead segments.
    pub(crate) fn index_tick(&self) -> Result<()> {
        self.prepare_spare();
        if self.is_flush_due()? {
            self.checkpoint()?;
        } else {
            let _one_at_a_time = self.checkpoint.lock();
            self.retire_dead()?;
        }
        self.lay_ballast();
        Ok(())
    }

    fn is_flush_due(&self) -> Result<bool> {
        let log = self.log.lock();
        log.check()?;
        let options = &self.options;
        let old = self.clock.now().saturating_sub(log.flushed_at) >= options.flush_interval;
        let behind = self.applied.load(Ordering::Relaxed) < log.last_lsn();
        Ok(log.bytes_since_flush >= options.flush_log_bytes
            || log.records_since_flush >= options.flush_records
            || self.delta_bytes.load(Ordering::Relaxed) >= options.flush_delta_bytes as u64
            || (behind && old)
            // A full disk: what was deleted frees its room once the index has followed.
            || (behind && self.ballast.is_pressed())
            || self.flush_again.load(Ordering::Acquire))
    }

    /// Makes the next log segment before it is needed, once a quarter of the active one is used.
    fn prepare_spare(&self) {
        let wanted = {
            let log = self.log.lock();
            log.mode == Mode::Normal && log.spare.is_none() && log.offset * 4 > log.active.header.size
        };
        if !wanted {
            return;
        }
        match self.make_segment(Kind::Log, self.options.log_segment_bytes) {
            Ok(spare) => {
                let mut log = self.log.lock();
                // A commit that could not wait may have made a later one.
                if log.spare.is_none() && log.active.number() < spare.number() {
                    log.spare = Some(spare);
                }
            }
            Err(error) => tracing::warn!(%error, "the next log segment could not be prepared"),
        }
    }
}
