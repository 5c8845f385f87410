//! Freeing what has ended, one deal at a time, and the uptime that graces are counted in.

use serde::{Deserialize, Serialize};

use super::{DealRow, DealState, Entry, Outcome, Store, disk, storage};
use crate::codec;
use crate::deal::DealId;
use crate::provider::config::ProviderConfig;

const UPTIME_BYTES_MAX: usize = 64;

#[derive(Serialize, Deserialize)]
struct Uptime {
    seconds: u64,
    v: u8,
}

impl Store {
    /// Frees what has ended. `uptime` is [`Store::uptime`] as it is now; returns how many deals went. One that cannot be
    /// freed holds up no other, and is tried again the next time.
    pub(in crate::provider) fn sweep(&self, config: &ProviderConfig, now: u64, uptime: u64) -> usize {
        let entries: Vec<(DealId, Entry)> = {
            let index = self.index.lock();
            let due = |e: &Entry| {
                let unpushed = e.state == DealState::Taken && e.push_until < now;
                !e.reserving && !e.receiving && (unpushed || e.end < now || e.gone.is_some())
            };
            index.deals.iter().filter(|(_, e)| due(e)).map(|(id, e)| (*id, e.clone())).collect()
        };
        let grace = config.limits.grace_seconds;
        let (mut freed, mut failed) = (0, Vec::new());
        for (id, entry) in entries {
            match self.sweep_one(&id, &entry, now, uptime, grace) {
                Ok(gone) => freed += usize::from(gone),
                Err(e) => failed.push((id, e.text)),
            }
        }
        if let Some((deal, why)) = failed.first() {
            tracing::warn!(%deal, "{} ended deals are not freed; the first: {why}", failed.len());
        }
        self.keep_ballast();
        freed
    }

    /// Whether the deal went.
    fn sweep_one(&self, id: &DealId, entry: &Entry, now: u64, uptime: u64, grace: u64) -> Outcome<bool> {
        if entry.state == DealState::Taken && entry.push_until < now {
            return self.forget(id).map(|()| true);
        }
        match (entry.end < now, entry.gone) {
            (true, None) => self.set_gone(id, Some(uptime))?,
            // The clock had run ahead, and was set right.
            (false, Some(_)) => self.set_gone(id, None)?,
            (true, Some(gone)) if uptime.saturating_sub(gone) >= grace => {
                self.release(id)?;
                self.forget(id)?;
                return Ok(true);
            }
            _ => {}
        }
        Ok(false)
    }

    fn set_gone(&self, id: &DealId, gone: Option<u64>) -> Outcome<()> {
        let set = |row: &mut DealRow| {
            row.gone = gone;
            Ok(())
        };
        self.change_row(id, set).map(|_| ())
    }

    /// Deletes all traces of a deal that binds nobody any more. The slot first: a slot without a row would never be
    /// found again.
    fn forget(&self, id: &DealId) -> Outcome<()> {
        {
            let mut index = self.index.lock();
            match index.deals.get_mut(id) {
                // A push has just begun.
                Some(entry) if entry.receiving => return Ok(()),
                Some(entry) => entry.reserving = true,
                None => return Ok(()),
            }
        }
        let done = self.delete_slot(id).and_then(|()| {
            let _one_at_a_time = self.rows.lock();
            disk::remove(&self.deals.join(id.to_string()))?;
            disk::sync_dir(&self.deals)
        });
        let mut index = self.index.lock();
        match done {
            Ok(()) => index.remove(id),
            Err(e) => {
                index.change(id, |entry| entry.reserving = false);
                return Err(storage(&e));
            }
        }
        Ok(())
    }

    /// Seconds that the provider was up, over all its runs, as last written down.
    pub(in crate::provider) fn uptime(&self) -> u64 {
        let bytes =
            disk::read_limited(&self.root.join("uptime"), UPTIME_BYTES_MAX as u64).unwrap_or_default();
        codec::decode::<Uptime>(&bytes, UPTIME_BYTES_MAX).map_or(0, |u| u.seconds)
    }

    /// Writes the uptime down. Losing the last of it only lengthens a grace.
    pub(in crate::provider) fn set_uptime(&self, seconds: u64) -> Outcome<()> {
        disk::write_atomic(&self.root, "uptime", &codec::encode(&Uptime { seconds, v: 1 }))
            .map_err(|e| storage(&e))
    }
}
