//! How much room there is: what `df` shows and when ENOSPC comes.
//!
//! Owns: the reserve, and a figure that is a second old at most. Promises: asking costs an atomic load or two; ENOSPC comes while the reserve still
//! stands, so that what the kernel has admitted, deletions and commits always find room.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_store::{Clock, Store};
use parking_lot::Mutex;

use super::types::DriveOptions;
use crate::vfs::Space;

/// Kept free for the kernel's dirty pages, deletions, the index's compaction and commits; more where the owner says so.
const RESERVE_BYTES: u64 = 256 << 20;
/// But no more than this share (1/16) of a small drive or disk.
const RESERVE_SHIFT: u32 = 4;
/// How old the figure may be.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// See the module's documentation.
pub(crate) struct SpaceGauge {
    store: Store,
    clock: Arc<dyn Clock>,
    /// Whose disk is asked; `None` where the home is in memory.
    home: Option<PathBuf>,
    quota: Option<u64>,
    reserve: u64,
    total: AtomicU64,
    free: AtomicU64,
    piece_bytes: AtomicU64,
    refreshed: Mutex<Option<Duration>>,
}

impl SpaceGauge {
    pub(crate) fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        home: Option<PathBuf>,
        options: &DriveOptions,
    ) -> Self {
        let gauge = Self {
            store,
            clock,
            home,
            quota: options.quota_bytes,
            reserve: options.disk_free_bytes_min.max(RESERVE_BYTES),
            total: AtomicU64::new(0),
            free: AtomicU64::new(0),
            piece_bytes: AtomicU64::new(0),
            refreshed: Mutex::new(None),
        };
        gauge.space();
        gauge
    }

    /// What local pieces take.
    pub(crate) fn set_piece_bytes(&self, bytes: u64) {
        self.piece_bytes.store(bytes, Ordering::Relaxed);
        *self.refreshed.lock() = None;
    }

    /// The present figure.
    pub(crate) fn space(&self) -> Space {
        if let Some(mut refreshed) = self.refreshed.try_lock() {
            let now = self.clock.now();
            if refreshed.is_none_or(|at| now.saturating_sub(at) >= REFRESH_INTERVAL) {
                *refreshed = Some(now);
                self.refresh();
            }
        }
        Space { total: self.total.load(Ordering::Relaxed), free: self.free.load(Ordering::Relaxed) }
    }

    fn refresh(&self) {
        let (disk_total, disk_free) = self.disk();
        let usage = self.store.usage();
        let log = usage.disk_bytes.saturating_sub(usage.recycled_bytes);
        let used =
            log.saturating_add(self.piece_bytes.load(Ordering::Relaxed)).saturating_add(usage.index_bytes);
        let total = self.quota.map_or(disk_total, |quota| quota.min(disk_total));
        let reserve = self.reserve.min(total >> RESERVE_SHIFT);
        let within_quota = self.quota.map_or(u64::MAX, |quota| quota.saturating_sub(used));
        let free = disk_free.saturating_add(usage.recycled_bytes).min(within_quota).saturating_sub(reserve);
        self.total.store(total, Ordering::Relaxed);
        self.free.store(free, Ordering::Relaxed);
    }

    /// The disk's size and what is free on it.
    fn disk(&self) -> (u64, u64) {
        let Some(home) = &self.home else { return (u64::MAX >> 1, u64::MAX >> 1) };
        match nix::sys::statvfs::statvfs(home) {
            Ok(disk) => {
                let unit = disk.fragment_size();
                (disk.blocks().saturating_mul(unit), disk.blocks_available().saturating_mul(unit))
            }
            Err(error) => {
                tracing::warn!(%error, "the disk does not say how much room there is");
                (u64::MAX >> 1, u64::MAX >> 1)
            }
        }
    }
}
