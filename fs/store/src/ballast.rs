//! Room that is kept for the moment when there is none.
//!
//! Owns one file of zeros beside the segments. On a full disk nothing can be freed without writing first: the index must follow
//! the log before a dead segment goes. Promises: the ballast and the segments kept for reuse are given up before an index, a
//! log segment or a start fails for want of room, and the ballast is laid again once there is plenty. Refuses: to give the
//! ballast for file data, which may be turned away.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::Result;
use crate::inner::Inner;
use crate::medium::StorageMedium;
use crate::segment;
use crate::{StoreError, StoreOptions};

const NAME: &str = "ballast";
/// The ballast is laid when so many times its size is free.
const PLENTY: u64 = 4;
/// And never more than this part of the medium.
const SHARE: u64 = 32;
/// RocksDB goes on after a full disk only when a whole write buffer fits again.
const WRITE_BUFFER_BYTES_MIN: usize = 1 << 20;

/// The ballast of a medium of this size.
fn fit(medium: &dyn StorageMedium, bytes: u64) -> u64 {
    // A medium that cannot say how much room it has is none that fills up.
    medium.room().map_or(0, |(total, _)| bytes.min(total / SHARE))
}

/// The index's write buffer, such that giving the ballast lets it go on.
pub(crate) fn write_buffer_bytes(medium: &dyn StorageMedium, options: &StoreOptions) -> usize {
    match fit(medium, options.ballast_bytes) {
        0 => options.write_buffer_bytes,
        ballast => {
            let half = usize::try_from(ballast / 2).unwrap_or(usize::MAX);
            options.write_buffer_bytes.min(half.max(WRITE_BUFFER_BYTES_MIN))
        }
    }
}

pub(crate) struct Ballast {
    bytes: u64,
    there: AtomicBool,
    /// Data was turned away.
    full: AtomicBool,
    /// Writers whose data was turned away and who wait for the next dead segment.
    waiting: AtomicUsize,
}

impl Ballast {
    /// What an earlier run left; one that is not whole is no ballast.
    pub(crate) fn find(medium: &dyn StorageMedium, bytes: u64) -> Self {
        let bytes = fit(medium, bytes);
        let whole = medium.open(NAME).and_then(|file| file.len()).is_ok_and(|len| len >= bytes && bytes > 0);
        Ballast {
            bytes,
            there: AtomicBool::new(whole),
            full: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Whether the disk was found full and there was no plenty since: what dies must free its room at once.
    pub(crate) fn is_pressed(&self) -> bool {
        self.bytes > 0 && (!self.there.load(Ordering::Acquire) || self.full.load(Ordering::Acquire))
    }

    /// What the given ballast left is for the index, the log and pieces.
    pub(crate) fn check_data(&self, medium: &dyn StorageMedium) -> Result<()> {
        let given = self.bytes > 0 && !self.there.load(Ordering::Acquire);
        if given && medium.room().is_some_and(|(_, free)| free < self.bytes) {
            return Err(StoreError::NoSpace { what: "file data" });
        }
        Ok(())
    }

    pub(crate) fn note_full(&self) {
        self.full.store(true, Ordering::Release);
    }

    /// Whether a writer waits for a dead segment: removed, its room would be whose comes first, and that may be another program.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    fn lay(&self, medium: &dyn StorageMedium) {
        let plenty = medium.room().is_some_and(|(_, free)| free / PLENTY >= self.bytes);
        if !self.is_pressed() || !plenty {
            return;
        }
        self.full.store(false, Ordering::Release);
        if self.there.load(Ordering::Acquire) {
            return;
        }
        segment::remove_quietly(medium, NAME);
        let laid = medium.create(NAME).and_then(|file| {
            segment::write_zeros(&*file, 0, self.bytes)?;
            file.sync_data()
        });
        match laid {
            Ok(()) => self.there.store(true, Ordering::Release),
            Err(error) => {
                tracing::debug!(%error, "no ballast");
                segment::remove_quietly(medium, NAME);
            }
        }
    }

    fn give(&self, medium: &dyn StorageMedium) -> bool {
        self.there.swap(false, Ordering::AcqRel) && medium.remove(NAME).is_ok()
    }
}

/// Gives the ballast of a store that is not open; whether there was one.
pub(crate) fn give_unopened(medium: &dyn StorageMedium) -> bool {
    let given = medium.remove(NAME).is_ok();
    if given {
        tracing::warn!("the disk is full: going on with the room that is kept for that");
    }
    given
}

impl Inner {
    /// Removes segments that are kept for reuse. Whether that made any room.
    pub(crate) fn give_recycled(&self) -> bool {
        let free = std::mem::take(&mut *self.forge.free.lock());
        for segment in &free {
            segment::remove_quietly(&*self.medium, &segment.name);
        }
        !free.is_empty()
    }

    /// The disk is full: gives up what is kept, the ballast last. Whether trying again may help.
    pub(crate) fn give_way(&self) -> bool {
        if self.give_recycled() {
            return true;
        }
        let given = self.ballast.give(&*self.medium);
        if given {
            tracing::warn!("the disk is full: going on with the room that is kept for that");
        }
        given
    }

    /// Runs `work` again as long as room can be made for it.
    pub(crate) fn with_room<T>(&self, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        loop {
            match work() {
                Err(StoreError::NoSpace { .. }) if self.give_way() => {}
                other => return other,
            }
        }
    }

    /// Somebody was turned away for want of room: what is dead shall free its own at once. Whether anything is, that the index has only to follow for, or a
    /// snapshot to end.
    pub(crate) fn want_room(&self) -> bool {
        let dead = self.has_dead() || self.has_pinned();
        if dead {
            self.ballast.note_full();
            self.ring_for_index();
        }
        dead
    }

    /// The same, done when it returns, for who brings data: one dead segment is kept for it. Whether anything was freed.
    pub(crate) fn free_dead(&self) -> bool {
        if !self.has_dead() {
            return false;
        }
        self.ballast.note_full();
        self.ballast.waiting.fetch_add(1, Ordering::AcqRel);
        let freed = self.checkpoint().is_ok();
        self.ballast.waiting.fetch_sub(1, Ordering::AcqRel);
        freed
    }

    /// Whether a segment in which nothing lives is kept for a snapshot, as those of seals: seconds.
    fn has_pinned(&self) -> bool {
        let log = self.log.lock();
        let snapshots = self.snapshots.lock();
        let pinned = |number: &u64| {
            let account = log.ledger.account(*number);
            account.live_payloads == 0 && account.is_readable_from(&snapshots)
        };
        log.check().is_ok() && self.segments.read().keys().any(pinned)
    }

    /// Whether a segment in which nothing lives waits for the index alone.
    fn has_dead(&self) -> bool {
        let log = self.log.lock();
        let mut data = self.data.lock();
        let active_is_dead = data.active.as_ref().is_some_and(|active| {
            let account = log.ledger.account(active.number());
            account.live_payloads == 0 && account.last_release > 0 && !active.is_in_flight()
        });
        if active_is_dead {
            // What comes next goes elsewhere.
            data.active = None;
        }
        drop(data);
        let applied = self.applied.load(Ordering::Acquire);
        let waits = |number: &u64| {
            let account = log.ledger.account(*number);
            let last = account.last_lsn.max(account.last_release);
            *number != log.active.number() && account.live_payloads == 0 && last > applied
        };
        log.check().is_ok() && (active_is_dead || self.segments.read().keys().any(waits))
    }

    pub(crate) fn lay_ballast(&self) {
        self.ballast.lay(&*self.medium);
    }
}
