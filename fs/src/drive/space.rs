//! How much room there is: what `df` shows, when a change waits, and when ENOSPC comes.
//!
//! Owns: the reserve, the quota, and a figure that is a second old at most. Promises: asking costs an atomic load or two; ENOSPC comes while the reserve
//! still stands, so that what the kernel has admitted, deletions and commits always find room; under a quota it comes only when nothing drains any more.
//!
//!     quota = index + pieces + log + ballast + (the log's payloads once more: sealing writes them into pieces before the log lets go) + reserve + free
//!
//! Without a quota the disk is full or it is not: who is refused waits only while what was deleted frees its room, a few seconds at most.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use holdfast_store::{Clock, Store};
use parking_lot::Mutex;

use super::types::DriveOptions;
use crate::pieces::folder::Folder;
use crate::vfs::{Room, Space};

/// Kept free for the kernel's dirty pages, deletions, the index's compaction and commits; more where the owner says so.
const RESERVE_BYTES: u64 = 256 << 20;
/// But no more than this share (1/16) of a small drive or disk.
const RESERVE_SHIFT: u32 = 4;
/// How old the figure may be.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// The same under a quota, which a fast writer fills in less than a second.
const REFRESH_INTERVAL_QUOTA: Duration = Duration::from_millis(100);
/// With no change of what is taken and no byte sent to a provider for so long, nothing drains: a provider's own timeouts are shorter.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// What was deleted has freed its room after so long, or something keeps it from that.
const FREED_WITHIN: Duration = Duration::from_secs(5);
/// One change asks for no more than this share (1/8) of the quota.
const LARGEST_SHIFT: u32 = 3;
/// What `df` shows as free under a quota while it drains. How much the providers take is not known beforehand, and a file manager
/// that reads the quota's rest here would refuse to copy what fits.
const SHOWN_FREE_BYTES: u64 = 1 << 40;

/// See the module's documentation.
pub(crate) struct SpaceGauge {
    store: Store,
    folder: Arc<Folder>,
    clock: Arc<dyn Clock>,
    /// Whose disk is asked; `None` where the home is in memory.
    home: Option<PathBuf>,
    quota: Option<u64>,
    reserve: u64,
    /// What the store may keep for a full disk.
    ballast: u64,
    total: AtomicU64,
    free: AtomicU64,
    /// Somebody was told to wait since the last time that there was room.
    pressed: AtomicBool,
    stalled: AtomicBool,
    state: Mutex<State>,
}

/// When the figures were taken, and when they last moved.
#[derive(Default)]
struct State {
    refreshed: Option<Duration>,
    used: u64,
    sent: u64,
    moved_at: Duration,
    /// Without a quota: since when somebody is refused while something frees its room.
    freeing_since: Option<Duration>,
}

impl SpaceGauge {
    pub(crate) fn new(
        store: Store,
        folder: Arc<Folder>,
        clock: Arc<dyn Clock>,
        home: Option<PathBuf>,
        options: &DriveOptions,
    ) -> Self {
        let gauge = Self {
            store,
            folder,
            clock,
            home,
            quota: options.quota_bytes,
            ballast: options.store.ballast_bytes,
            reserve: options.disk_free_bytes_min.max(RESERVE_BYTES),
            total: AtomicU64::new(0),
            free: AtomicU64::new(0),
            pressed: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            state: Mutex::new(State::default()),
        };
        gauge.look(0);
        gauge
    }

    /// The next question takes new figures.
    pub(crate) fn expire(&self) {
        self.state.lock().refreshed = None;
    }

    /// What `df` shows; `data` is what stands on the drive, `sent` counts the bytes that providers took.
    pub(crate) fn space(&self, data: u64, sent: u64) -> Space {
        self.look(sent);
        let free = self.free.load(Ordering::Relaxed);
        match self.quota {
            None => Space { total: self.total.load(Ordering::Relaxed), free },
            Some(_) if self.stalled.load(Ordering::Relaxed) => {
                Space { total: data.saturating_add(free), free }
            }
            Some(_) => Space { total: data.saturating_add(SHOWN_FREE_BYTES), free: SHOWN_FREE_BYTES },
        }
    }

    /// Whether `bytes` more may be written now. What is let in counts at once, twice: in the log, and for its sealing.
    pub(crate) fn room(&self, bytes: u64, sent: u64) -> Room {
        self.look(sent);
        let needed = match self.quota {
            // More than this share at once (a file that is only allocated) never fits, and comes in parts if it comes.
            Some(quota) => bytes.saturating_mul(2).min(quota >> LARGEST_SHIFT).max(1),
            None => bytes.max(1),
        };
        let free = self.free.load(Ordering::Relaxed);
        if free >= needed {
            if self.quota.is_some() && bytes > 0 {
                let _ = self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| {
                    Some(free.saturating_sub(needed))
                });
            }
            return Room::Free;
        }
        if self.quota.is_none() {
            // Nobody is refused by an old figure.
            self.refresh();
            return if self.free.load(Ordering::Relaxed) >= needed { Room::Free } else { Room::None };
        }
        if !self.pressed.swap(true, Ordering::Relaxed) {
            // Whoever waits first begins the time in which something has to move.
            self.state.lock().moved_at = self.clock.now();
            self.stalled.store(false, Ordering::Relaxed);
        }
        if self.stalled.load(Ordering::Relaxed) { Room::Stalled } else { Room::Waits }
    }

    /// There is no room, and `freeing` says whether some is about to come free: whether that is worth waiting for.
    pub(crate) fn worth_waiting(&self, freeing: bool) -> bool {
        let mut state = self.state.lock();
        if !freeing {
            state.freeing_since = None;
            return false;
        }
        let now = self.clock.now();
        now.saturating_sub(*state.freeing_since.get_or_insert(now)) < FREED_WITHIN
    }

    /// Does somebody wait for room?
    pub(crate) fn is_pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }

    /// Room for writers, in bytes.
    pub(crate) fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// Takes the figures anew if they are old.
    pub(crate) fn look(&self, sent: u64) {
        let Some(mut state) = self.state.try_lock() else { return };
        let now = self.clock.now();
        let interval = if self.quota.is_some() { REFRESH_INTERVAL_QUOTA } else { REFRESH_INTERVAL };
        if state.refreshed.is_none_or(|at| now.saturating_sub(at) >= interval) {
            state.refreshed = Some(now);
            let used = self.refresh();
            if used != state.used || sent != state.sent {
                (state.used, state.sent, state.moved_at) = (used, sent, now);
            }
            let quiet = now.saturating_sub(state.moved_at) >= STALLED_AFTER;
            self.stalled.store(self.is_pressed() && quiet, Ordering::Relaxed);
        }
    }

    /// Returns what is taken.
    fn refresh(&self) -> u64 {
        let (disk_total, disk_free) = self.disk();
        let usage = self.store.usage();
        let log = usage.disk_bytes.saturating_sub(usage.recycled_bytes);
        let used = log.saturating_add(self.folder.local_bytes());
        let total = self.quota.map_or(disk_total, |quota| quota.min(disk_total));
        let reserve = self.reserve.min(total >> RESERVE_SHIFT);
        let promised =
            if self.quota.is_some() { usage.live_payload_bytes.saturating_add(self.ballast) } else { 0 };
        let within_quota =
            self.quota.map_or(u64::MAX, |quota| quota.saturating_sub(used).saturating_sub(promised));
        let free = disk_free.saturating_add(usage.recycled_bytes).min(within_quota).saturating_sub(reserve);
        self.total.store(total, Ordering::Relaxed);
        self.free.store(free, Ordering::Relaxed);
        if free > total >> RESERVE_SHIFT {
            self.pressed.store(false, Ordering::Relaxed);
        }
        used
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
