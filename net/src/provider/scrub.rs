//! Reading what is kept from the disk, all of it, before its owners ask for it.
//!
//! A challenge asks for a few leaves: it finds what is missing, and a single rotten sector by luck alone (proofs/SOUNDNESS.md,
//! section 2). So every slot is read whole once in [`ProviderLimits::scrub_seconds`](super::ProviderLimits), at the pace that takes, and
//! hashed to its piece CID.
//!
//! ```text
//! other bytes, or none, twice in a row ─► marked as damaged, over restarts ─► challenges are refused with `Corrupt`: the owner, or a watcher,
//!                                         has the slot made anew elsewhere ─► the deal is released
//! right again at a later pass          ─► the mark goes (a cable, not the disk)
//! ```
//!
//! A damaged slot is still read from: blocks are checked by who reads them, and those that are right may be the last there are. One slot
//! is read at a time, a part at a time; memory holds a part and, during a pass, a name for each slot.

use std::sync::Arc;
use std::time::Duration;

use super::Inner;
use super::store::{Part, Progress};
use crate::deal::DealId;

/// Bytes that are read and hashed in one go.
const PART_BYTES: usize = 1 << 20;
/// A pass shall be over within this share of its period: what comes meanwhile is read by the next.
const PACE_PERCENT: u64 = 80;
/// Slower than this saves nothing.
const RATE_MIN: u64 = 1 << 20;
/// How far it is is written down so often.
const NOTE: Duration = Duration::from_secs(60);
/// The longest wait between two passes, and after one that could not go on.
const LOOK: Duration = Duration::from_secs(3600);

/// Until the provider stops.
pub(super) async fn run(inner: Arc<Inner>) {
    if inner.config.limits.scrub_seconds == 0 {
        return;
    }
    let stop = inner.stop.clone();
    let scrubbing = async {
        loop {
            let rest = pass(&inner).await.unwrap_or(LOOK);
            tokio::time::sleep(rest.min(LOOK)).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = scrubbing => {}
    }
}

/// Goes on with a pass, or begins the next if it is time; how long to rest after it.
async fn pass(inner: &Arc<Inner>) -> Option<Duration> {
    let limits = &inner.config.limits;
    let now = inner.env.clock.unix_seconds();
    let store = inner.store.clone();
    let known = on_disk(move || store.progress()).await?;
    let mut progress = match known {
        // One that began in the future was noted under a wrong clock.
        Some(progress) if progress.began <= now => progress,
        _ => Progress::begin(now),
    };
    if progress.over {
        let left = progress.began.saturating_add(limits.scrub_seconds).saturating_sub(now);
        if left > 0 {
            return Some(Duration::from_secs(left));
        }
        progress = Progress::begin(now);
    }
    let after = progress.after.as_ref().map(|id| DealId(**id));
    let store = inner.store.clone();
    let slots = on_disk(move || store.to_scrub(after)).await?;
    let total = inner.store.usage().stored_bytes;
    let pace = Pace::new(total, limits.scrub_seconds, limits.scrub_bytes_per_second_max);
    let mut noted = inner.env.clock.monotonic_ms();
    for id in slots {
        let found = read(inner, id, &pace).await?;
        // Once more before anything is said of it: memory and cables err, too.
        let found = if found == Some(false) { read(inner, id, &pace).await? } else { found };
        if let Some(right) = found {
            say(inner, id, right).await?;
        }
        progress.after = Some(id.0.into());
        let ms = inner.env.clock.monotonic_ms();
        if ms.saturating_sub(noted) >= u64::try_from(NOTE.as_millis()).unwrap_or(u64::MAX) {
            noted = ms;
            note(inner, progress.clone()).await?;
        }
    }
    progress.over = true;
    note(inner, progress.clone()).await?;
    let next = progress.began.saturating_add(limits.scrub_seconds);
    Some(Duration::from_secs(next.saturating_sub(inner.env.clock.unix_seconds())))
}

/// A slot, whole: whether it is right, where that can be said.
async fn read(inner: &Arc<Inner>, id: DealId, pace: &Pace) -> Option<Option<bool>> {
    let store = inner.store.clone();
    let Some(mut reading) = on_disk(move || store.begin_reading(&id)).await? else { return Some(None) };
    let mut buffer = vec![0; PART_BYTES];
    loop {
        let (part, back) = on_disk(move || {
            let part = reading.more(&mut buffer);
            (part, buffer)
        })
        .await?;
        buffer = back;
        match part {
            Part::More(rest, bytes) => {
                reading = rest;
                pace.step(bytes).await;
            }
            Part::Whole(right, bytes) => {
                pace.step(bytes).await;
                return Some(Some(right));
            }
            Part::Nothing => return Some(None),
        }
    }
}

async fn say(inner: &Arc<Inner>, id: DealId, right: bool) -> Option<()> {
    let store = inner.store.clone();
    match on_disk(move || store.mark(&id, !right)).await? {
        Ok(true) if right => tracing::warn!(deal = %id, "a slot that was damaged is what it was again"),
        Ok(true) => tracing::error!(
            deal = %id,
            "a slot is damaged: other bytes came from the disk than were stored; its owner is told at the next challenge"
        ),
        Ok(false) => {}
        Err(e) => tracing::error!(deal = %id, "what a scrub found could not be written down: {}", e.text),
    }
    Some(())
}

async fn note(inner: &Arc<Inner>, progress: Progress) -> Option<()> {
    let store = inner.store.clone();
    if let Err(e) = on_disk(move || store.set_progress(&progress)).await? {
        tracing::warn!("how far the scrub is is not written down: {}", e.text);
    }
    Some(())
}

/// Blocking work; nothing where it panicked.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work)
        .await
        .inspect_err(|e| tracing::error!("a scrub's read failed: {e}"))
        .ok()
}

/// So many bytes in a second, on average.
struct Pace {
    rate: u64,
}

impl Pace {
    fn new(total: u64, period_seconds: u64, most: u64) -> Pace {
        let seconds = (period_seconds.saturating_mul(PACE_PERCENT) / 100).max(1);
        Pace { rate: total.div_ceil(seconds).clamp(RATE_MIN, most.max(RATE_MIN)) }
    }

    async fn step(&self, bytes: u64) {
        tokio::time::sleep(Duration::from_secs_f64(bytes as f64 / self.rate as f64)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_takes_most_of_its_period_and_no_more_than_it_may() {
        let (tib, day) = (1 << 40, 86_400);
        let four = Pace::new(4 * tib, 30 * day, 32 << 20).rate;
        assert_eq!(four, (4 * tib).div_ceil(24 * day), "2 MiB a second");
        assert_eq!(Pace::new(tib, 30 * day, 32 << 20).rate, RATE_MIN, "sooner than it has to");
        assert_eq!(Pace::new(100 * tib, 30 * day, 32 << 20).rate, 32 << 20);
        assert_eq!(Pace::new(0, 30 * day, 32 << 20).rate, RATE_MIN);
        assert_eq!(Pace::new(5 * RATE_MIN, 0, u64::MAX).rate, 5 * RATE_MIN);
    }
}
