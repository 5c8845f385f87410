//! Requests that wait for room: where backpressure under a quota comes from.
//!
//! Owns: the threads on which such requests wait, and the bytes of parked writes. Promises: what a program asks for waits no longer than
//! [`ROOM_PATIENCE`], neither in the queue nor on its thread, so that it is answered in time. What the kernel has accepted already waits as long as room is
//! being made (the program is slowed down by the kernel, which holds no more than it may), and is admitted when none is coming. Refuses to park more
//! than [`PARKED_BYTES_MAX`]: beyond, a write is taken at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use holdfast_store::Clock;

use super::init::{IO_BYTES_MAX, PACED_BACKGROUND_MAX};
use super::pool::Pool;
use crate::vfs::{Room, Vfs};

/// Requests of programs that wait side by side.
const ASKING_THREADS_MAX: usize = 32;
/// Cached writes that wait: as many as the kernel sends.
const WRITING_THREADS_MAX: usize = PACED_BACKGROUND_MAX as usize;
/// Twice this (queue and thread) leaves 2 s of the 10 s in which a request is answered.
const ROOM_PATIENCE: Duration = Duration::from_secs(4);
/// How often a waiting request asks again.
const ASK_INTERVAL: Duration = Duration::from_millis(25);
/// Data of parked writes held in memory: those of the kernel, and half as much of programs that go around its cache.
const PARKED_BYTES_MAX: usize = PACED_BACKGROUND_MAX as usize * IO_BYTES_MAX as usize * 3 / 2;

pub(super) struct Pacing {
    asking: Pool,
    writing: Pool,
    clock: Arc<dyn Clock>,
    parked_bytes: Arc<AtomicUsize>,
}

impl Pacing {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let asking = Pool::new("holdfast-room", ASKING_THREADS_MAX, ROOM_PATIENCE, clock.clone());
        let writing = Pool::new("holdfast-write", WRITING_THREADS_MAX, Duration::MAX, clock.clone());
        Self { asking, writing, clock, parked_bytes: Arc::default() }
    }

    /// Runs `f` once there is room for `bytes`, or it waited long enough.
    pub(super) fn run(&self, vfs: &Arc<Vfs>, bytes: u64, f: impl FnOnce(&Vfs) + Send + 'static) {
        let (vfs, clock) = (vfs.clone(), self.clock.clone());
        self.asking.run(move |late| {
            let until = clock.now().saturating_add(ROOM_PATIENCE);
            while !late.0 && clock.now() < until && vfs.room(bytes) == Room::Waits {
                std::thread::sleep(ASK_INTERVAL);
            }
            f(&vfs);
        });
    }

    /// Runs `f`, a write that the kernel told a program to be done, once there is room; where none is coming, after a while all the same.
    pub(super) fn write(&self, vfs: &Arc<Vfs>, bytes: u64, f: impl FnOnce(&Vfs) + Send + 'static) {
        let (vfs, clock) = (vfs.clone(), self.clock.clone());
        self.writing.run(move |_| {
            let until = clock.now().saturating_add(ROOM_PATIENCE);
            loop {
                match vfs.room(bytes) {
                    Room::Waits => {}
                    Room::Stalled if clock.now() < until => {}
                    _ => break,
                }
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
