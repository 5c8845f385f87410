//! Figures, and the reading of everything.

use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::inner::{Inner, Mode, decode_place};
use crate::segment::Kind;
use crate::{Direction, KeyRange, Lsn, StoreError, Table, Usage};

/// Places read at once while scrubbing.
const SCRUB_CHUNK: usize = 1024;

impl Inner {
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage {
            applied_lsn: self.applied.load(Ordering::Relaxed),
            unsynced_bytes: self.unsynced.load(Ordering::Relaxed),
            delta_bytes: self.delta_bytes.load(Ordering::Relaxed) as usize,
            row_cache_bytes: self.cache.bytes(),
            index_bytes: self.index.disk_bytes(),
            syncs: self.syncs.load(Ordering::Relaxed),
            syncs_failed: self.syncs_failed.load(Ordering::Relaxed),
            ..Usage::default()
        };
        {
            let log = self.log.lock();
            usage.last_lsn = log.last_lsn();
            usage.durable_lsn = log.durable_lsn;
            usage.read_only = match &log.mode {
                Mode::Normal => None,
                Mode::ReadOnly(reason) => Some(reason.clone()),
                Mode::Closed => Some("closed".to_owned()),
            };
            for account in log.ledger.0.values() {
                usage.live_payloads += account.live_payloads;
                usage.live_payload_bytes += account.live_bytes;
            }
        }
        for segment in self.segments.read().values() {
            usage.segments += 1;
            match segment.header.kind {
                Kind::Log => usage.log_bytes += segment.header.size,
                Kind::Data => usage.data_bytes += segment.header.size,
            }
        }
        usage.recycled_bytes = self.forge.free.lock().iter().map(|free| free.size).sum();
        usage.disk_bytes = usage.log_bytes + usage.data_bytes + usage.recycled_bytes + usage.index_bytes;
        usage
    }

    /// Opens every payload that a row refers to. Gives those that do not open.
    pub(crate) fn scrub(&self) -> Result<Vec<Lsn>> {
        let mut damaged = Vec::new();
        let mut range = KeyRange::all();
        loop {
            let rows = self.scan(Table::Payload, &range, SCRUB_CHUNK, Direction::Forward)?;
            let Some((last, _)) = rows.last() else { return Ok(damaged) };
            range = range.after(last.clone());
            for (key, row) in rows {
                let lsn = key.iter().fold(0u64, |acc, byte| acc << 8 | u64::from(*byte));
                let place = match decode_place(lsn, Some(row)) {
                    Ok(place) => place,
                    Err(_) => {
                        damaged.push(lsn);
                        continue;
                    }
                };
                match place.map_or(Ok(()), |place| self.check_place(&place)) {
                    Ok(()) => {}
                    // Released since the scan.
                    Err(StoreError::PayloadGone(_)) if self.place(lsn)?.is_none() => {}
                    Err(_) => damaged.push(lsn),
                }
            }
        }
    }
}
