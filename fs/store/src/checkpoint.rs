//! Checkpoint: the index follows the log, and what nobody needs any more is let go.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use crate::delta::Layer;
use crate::error::Result;
use crate::failpoint::failpoint;
use crate::forge::FreeSegment;
use crate::index::{STATE_KEY, Write};
use crate::inner::{Inner, Log};
use crate::ledger::Ledger;
use crate::segment::{self, Kind, Segment};
use crate::{Lsn, StoreError};

/// What the index says about itself, in one row of each batch.
pub(crate) struct IndexState {
    pub(crate) store_id: [u8; 16],
    pub(crate) applied: Lsn,
    pub(crate) ledger: Ledger,
}

const STATE_VERSION: u8 = 1;

impl IndexState {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![STATE_VERSION];
        out.extend_from_slice(&self.store_id);
        out.extend_from_slice(&self.applied.to_le_bytes());
        self.ledger.encode(&mut out);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<IndexState> {
        let bad = || StoreError::corrupt("the state row of the index");
        let (&version, rest) = bytes.split_first().ok_or_else(bad)?;
        if version > STATE_VERSION {
            let what = "the index".to_owned();
            return Err(StoreError::NewerFormat { what, found: version, known: STATE_VERSION });
        }
        let (store_id, rest) = rest.split_first_chunk::<16>().ok_or_else(bad)?;
        let (applied, rest) = rest.split_first_chunk::<8>().ok_or_else(bad)?;
        let ledger = Ledger::decode(rest).ok_or_else(bad)?;
        Ok(IndexState { store_id: *store_id, applied: u64::from_le_bytes(*applied), ledger })
    }
}

impl Inner {
    /// Puts the active layer behind the frozen ones. Gives the last record that the layers now cover.
    pub(crate) fn freeze(&self, log: &mut MutexGuard<'_, Log>) -> Lsn {
        let last = log.last_lsn();
        self.view.write().freeze(last, &log.ledger);
        last
    }

    /// Brings everything up to now into the index, on disk, and retires dead segments.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        let _one_at_a_time = self.checkpoint.lock();
        let (lsn, layers) = {
            let mut log = self.log.lock();
            log.check()?;
            // Snapshots freeze layers too; only what goes into the index counts.
            log.records_since_flush = 0;
            log.bytes_since_flush = 0;
            log.flushed_at = self.clock.now();
            let lsn = self.freeze(&mut log);
            // Taken now: layers that others freeze during the sync have records that it does not cover.
            (lsn, self.view.read().frozen.clone())
        };
        // The index must never know a record that a power cut could take from the log.
        self.sync(lsn)?;
        if !layers.is_empty() {
            let written = self.with_room(|| self.write_layers(&layers));
            self.flush_again.store(written.is_err(), Ordering::Release);
            if let Err(error) = written {
                if let StoreError::NoSpace { .. } = error {
                    // The layers stay in memory and the records in the log: the next tick tries again.
                    return Err(error);
                }
                return Err(self.fail(&mut self.log.lock(), format!("the index cannot be written: {error}")));
            }
            let mut view = self.view.write();
            view.frozen.drain(..layers.len());
            self.delta_bytes.store((view.active.bytes + view.frozen_bytes()) as u64, Ordering::Relaxed);
        }
        self.retire_dead()
    }

    fn write_layers(&self, layers: &[Arc<Layer>]) -> Result<()> {
        let mut applied = 0;
        for layer in layers {
            failpoint!(self.options.failpoints, "index.batch.before");
            self.cache.begin_batch();
            self.write_layer(layer)?;
            self.cache.end_batch(&layer.rows);
            failpoint!(self.options.failpoints, "index.batch.after");
            applied = layer.last_lsn;
        }
        self.index.flush()?;
        failpoint!(self.options.failpoints, "index.flush.after");
        self.applied.store(applied, Ordering::Release);
        Ok(())
    }

    fn write_layer(&self, layer: &Layer) -> Result<()> {
        let ranges = layer
            .ranges
            .iter()
            .map(|span| Ok(Write::DeleteRange(span.from().as_slice(), span.to().as_slice())));
        let rows = layer.rows.iter().map(|(key, value)| {
            let key = key.as_slice();
            Ok(match value {
                Some(value) => Write::Put(key, self.values.seal(key, value)?),
                None => Write::Delete(key),
            })
        });
        let state = self.state_row(layer.last_lsn, layer.ledger.clone());
        self.index.write(&mut ranges.chain(rows).chain(std::iter::once(state)), layer.bytes)
    }

    fn state_row(&self, applied: Lsn, ledger: Ledger) -> Result<Write<'static>> {
        let state = IndexState { store_id: self.forge.store_id, applied, ledger };
        Ok(Write::Put(&STATE_KEY, self.values.seal(&STATE_KEY, &state.encode())?))
    }

    /// Retires segments that neither recovery, nor a row, nor a snapshot, nor a thread needs.
    pub(crate) fn retire_dead(&self) -> Result<()> {
        let dead = self.take_dead();
        if dead.is_empty() {
            return Ok(());
        }
        failpoint!(self.options.failpoints, "segment.retire.before");
        let mut recycled = Vec::new();
        for segment in dead {
            let (kind, size) = (segment.header.kind, segment.header.size);
            let usual = match kind {
                Kind::Log => self.options.log_segment_bytes,
                Kind::Data => self.options.data_segment_bytes,
            };
            let kept =
                self.forge.free.lock().iter().chain(&recycled).filter(|free| free.kind == kind).count();
            // A reader that found the place before its release may hold the file: it must not be overwritten under it.
            let unused = Arc::strong_count(&segment) == 1;
            let name = segment.name();
            let kept_max = match (self.ballast.is_pressed(), kind) {
                (false, _) => self.options.recycled_segments_max,
                (true, Kind::Data) if self.ballast.is_awaited() => 1,
                (true, _) => 0,
            };
            if size == usual && unused && kept < kept_max {
                let free = segment::free_name(kind, segment.number());
                let renamed = self.medium.rename(&name, &free);
                renamed.map_err(|error| StoreError::io("set a segment aside", &name, error))?;
                recycled.push(FreeSegment { kind, name: free, size });
            } else {
                self.medium
                    .remove(&name)
                    .map_err(|error| StoreError::io("remove a segment", &name, error))?;
            }
        }
        self.medium.sync_dir().map_err(|error| StoreError::io("sync the folder", "log", error))?;
        // Offered for reuse only now: overwritten while its old name could come back, it would look damaged.
        self.forge.free.lock().append(&mut recycled);
        failpoint!(self.options.failpoints, "segment.retire.after");
        Ok(())
    }

    fn take_dead(&self) -> Vec<Arc<Segment>> {
        let applied = self.applied.load(Ordering::Acquire);
        let mut log = self.log.lock();
        let data = self.data.lock();
        let snapshots = self.snapshots.lock();
        let in_use = |segment: &Segment| {
            let number = segment.number();
            let is =
                |other: &Option<Arc<Segment>>| other.as_ref().is_some_and(|other| other.number() == number);
            number == log.active.number()
                || is(&log.spare)
                || is(&data.active)
                || log.runs.iter().any(|run| run.segment.number() == number)
                || segment.is_in_flight()
                || segment.writers.load(Ordering::Acquire) > 0
                || !segment.retained.lock().is_empty()
        };
        let mut segments = self.segments.write();
        let dead: Vec<u64> = segments
            .values()
            .filter(|segment| {
                let account = log.ledger.account(segment.number());
                account.live_payloads == 0
                    && account.last_lsn <= applied
                    && account.last_release <= applied
                    && !account.is_readable_from(&snapshots)
                    && !in_use(segment)
            })
            .map(|segment| segment.number())
            .collect();
        for number in &dead {
            log.ledger.0.remove(number);
        }
        dead.iter().filter_map(|number| segments.remove(number)).collect()
    }
}
