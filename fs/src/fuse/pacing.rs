//! Requests that wait for room: where backpressure under a quota comes from.
//!
//! Owns: the threads on which such requests wait, and the bytes of parked writes. Promises: no request waits for room longer than
//! [`ROOM_PATIENCE`], neither in the queue nor on its thread, so that each is answered in time; what the kernel accepted from a program is
//! admitted in the end, as long as the disk takes it. Refuses to park more than [`PARKED_BYTES_MAX`]: beyond, a write is taken at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use holdfast_store::Clock;

use super::pool::Pool;
use crate::vfs::{Room, Vfs};

/// Requests that wait side by side.
const THREADS_MAX: usize = 64;
/// Twice this (queue and thread) leaves 2 s of the 10 s in which a request is answered.
const ROOM_PATIENCE: Duration = Duration::from_secs(4);
/// How often a waiting request asks again.
const ASK_INTERVAL: Duration = Duration::from_millis(25);
/// Data of parked writes held in memory.
const PARKED_BYTES_MAX: usize = 64 << 20;

pub(super) struct Pacing {
    pool: Pool,
    clock: Arc<dyn Clock>,
    parked_bytes: Arc<AtomicUsize>,
}

impl Pacing {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let pool = Pool::new("holdfast-room", THREADS_MAX, ROOM_PATIENCE, clock.clone());
        Self { pool, clock, parked_bytes: Arc::default() }
    }

    /// Runs `f` once there is room for `bytes`, or it waited long enough; unless `accepted` (the kernel told a program that it is
    /// written), also when none is coming.
    pub(super) fn run(
        &self,
        vfs: &Arc<Vfs>,
        bytes: u64,
        accepted: bool,
        f: impl FnOnce(&Vfs) + Send + 'static,
    ) {
        let (vfs, clock) = (vfs.clone(), self.clock.clone());
        self.pool.run(move |late| {
            let until = clock.now().saturating_add(ROOM_PATIENCE);
            let waits = |room| room == Room::Waits || (accepted && room == Room::Stalled);
            while !late.0 && clock.now() < until && waits(vfs.room(bytes)) {
                std::thread::sleep(ASK_INTERVAL);
            }
            f(&vfs);
        });
    }

    /// The same with a copy of a write's data; `None` when too much is parked already.
    pub(super) fn park(&self, data: &[u8]) -> Option<Parked> {
        let before = self.parked_bytes.fetch_add(data.len(), Ordering::Relaxed);
        if before.saturating_add(data.len()) > PARKED_BYTES_MAX {
            self.parked_bytes.fetch_sub(data.len(), Ordering::Relaxed);
            return None;
        }
        Some(Parked { data: data.to_vec(), count: self.parked_bytes.clone() })
    }
}

/// A write's data while it waits.
pub(super) struct Parked {
    pub(super) data: Vec<u8>,
    count: Arc<AtomicUsize>,
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.count.fetch_sub(self.data.len(), Ordering::Relaxed);
    }
}
