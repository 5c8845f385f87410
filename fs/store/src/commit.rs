//! Commit: a transaction becomes a record.
//!
//! Under the log lock the record gets its number, its place and its seal, and its rows enter the delta. Then one of the
//! waiting threads writes all that is sealed, in order, while the next records are already being made. So a record is never
//! written before one with a lower number, and a reply waits for all of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::MutexGuard;

use crate::error::Result;
use crate::failpoint::failpoint;
use crate::inner::{Inner, Log, Run, decode_place};
use crate::key::{Key, Span};
use crate::medium::write_all_at;
use crate::options::check_size;
use crate::payload::Place;
use crate::record::{Change, Draft, RecordKind};
use crate::segment::{HEADER_BYTES, Kind, Retained, Segment};
use crate::txn::{Image, Payload, PayloadKind, Txn};
use crate::{Lsn, StoreError, Table, limits};

impl Inner {
    pub(crate) fn commit(&self, txn: Txn) -> Result<Lsn> {
        if txn.is_empty() {
            return Ok(self.log.lock().last_lsn());
        }
        check_limits(&txn)?;
        self.make_room()?;
        // Brings the places into the cache: under the log lock a miss would cost everybody a read of the index.
        let places: Vec<[u8; 8]> = txn.refs.keys().map(|lsn| lsn.to_be_bytes()).collect();
        self.multi_get(Table::Payload, &places.iter().map(<[u8; 8]>::as_slice).collect::<Vec<_>>())?;
        let mut log = self.log.lock();
        log.check()?;
        let lsn = log.next_lsn;
        let (changes, dead) = self.resolve(lsn, log.cut, txn.ops, &txn.refs)?;
        self.append(&mut log, lsn, txn.ranges, changes, txn.payload.as_ref(), dead)?;
        self.write_out(&mut log, lsn)?;
        drop(log);
        self.nudge();
        Ok(lsn)
    }

    /// Values that needed the number, and reference counts as after-images. Gives the payloads that die, too.
    fn resolve(
        &self,
        lsn: Lsn,
        cut: Lsn,
        ops: Vec<(Key, Image)>,
        refs: &std::collections::BTreeMap<Lsn, i64>,
    ) -> Result<(Vec<Change>, Vec<Place>)> {
        let mut changes = Vec::with_capacity(ops.len() + refs.len() + 1);
        for (mut key, image) in ops {
            let value = match image {
                Image::Delete => None,
                Image::Put(value) => Some(value),
                Image::WithLsn(make) => {
                    let value = make(lsn);
                    check_size("value", value.len(), limits::VALUE_BYTES_MAX)?;
                    Some(value.into())
                }
                Image::AfterCut(value) => {
                    key = key.after_cut(cut);
                    Some(value)
                }
            };
            changes.push((key, value));
        }
        let mut dead = Vec::new();
        for (&of, &change) in refs.iter().filter(|(_, change)| **change != 0) {
            let key = Key::new(Table::Payload, &of.to_be_bytes());
            let mut place = decode_place(of, self.get_key(&key)?)?.ok_or(StoreError::PayloadGone(of))?;
            let count = i64::from(place.refs) + change;
            place.refs = u32::try_from(count).map_err(|_| StoreError::OverRelease(of))?;
            if place.refs == 0 {
                dead.push(place);
                changes.push((key, None));
            } else {
                changes.push((key, Some(Bytes::copy_from_slice(&place.encode()))));
            }
        }
        Ok((changes, dead))
    }

    /// Seals the record into the runs and applies it. After this it has happened, as far as readers can see.
    fn append(
        &self,
        log: &mut MutexGuard<'_, Log>,
        lsn: Lsn,
        ranges: Vec<Span>,
        mut changes: Vec<Change>,
        payload: Option<&(Payload, u32)>,
        dead: Vec<Place>,
    ) -> Result<()> {
        let (mut place, inline) = match payload {
            None => (None, None),
            Some((Payload(PayloadKind::Inline(bytes)), refs)) => (None, Some((bytes.clone(), *refs))),
            Some((Payload(PayloadKind::Staged(staged)), refs)) => {
                (Some(Place { lsn, refs: *refs, ..staged.place }), None)
            }
        };
        let kind = match (&place, ranges.is_empty()) {
            (Some(_), _) => RecordKind::Placed,
            (None, false) => RecordKind::Ranges,
            (None, true) => RecordKind::Rows,
        };
        let draft = Draft {
            lsn,
            durable: log.durable_lsn,
            kind,
            ranges: &ranges,
            changes: &changes,
            place: place.as_ref(),
            inline: inline.as_ref().map_or(&[], |(bytes, _)| bytes),
            inline_refs: inline.as_ref().map_or(0, |(_, refs)| *refs),
        };
        check_size("transaction", draft.rows_len(), limits::TXN_BYTES_MAX)?;
        let total = draft.total_len();
        self.ensure_room(log, total as u64)?;
        let nonce = self.nonces.take();
        let at = log.offset + draft.inline_offset() as u64;
        let segment = log.active.clone();
        self.seal_into_runs(log, &segment, &draft, nonce, total as u64);
        if let Some((bytes, refs)) = &inline {
            let len = bytes.len() as u32;
            place = Some(Place { segment: segment.number(), offset: at, len, refs: *refs, nonce, lsn });
        }
        if !ranges.is_empty() {
            // Over a layer of their own they hide what is below. Taken out of the layer that has it, rows by the ten thousand would hold up everybody.
            self.freeze(log);
        }
        log.next_lsn += 1;
        log.records_since_flush += 1;
        log.bytes_since_flush += total as u64;
        log.ledger.record(segment.number(), lsn);
        for place in &dead {
            log.ledger.died(place, lsn);
        }
        if let Some(place) = &place {
            log.ledger.born(place);
            let row = Bytes::copy_from_slice(&place.encode());
            changes.push((Key::new(Table::Payload, &lsn.to_be_bytes()), Some(row)));
        }
        let mut view = self.view.write();
        view.active.apply(lsn, ranges, changes);
        self.delta_bytes.store((view.active.bytes + view.frozen_bytes()) as u64, Ordering::Relaxed);
        if view.active.bytes >= self.options.layer_bytes_max {
            view.freeze(lsn, &log.ledger);
        }
        Ok(())
    }

    /// Appends the sealed record to the last run, or begins one.
    fn seal_into_runs(
        &self,
        log: &mut MutexGuard<'_, Log>,
        segment: &Arc<Segment>,
        draft: &Draft<'_>,
        nonce: [u8; crate::cipher::NONCE_BYTES],
        total: u64,
    ) {
        let offset = log.offset;
        log.offset += total;
        log.marked_lsn = draft.durable;
        self.unsynced.fetch_add(total, Ordering::Relaxed);
        if let Some(run) = log.runs.back_mut()
            && run.segment.number() == segment.number()
            && run.offset + run.bytes.len() as u64 == offset
        {
            draft.seal(segment, offset, nonce, &mut run.bytes);
            run.last_lsn = draft.lsn;
            return;
        }
        let mut bytes = Vec::new();
        draft.seal(segment, offset, nonce, &mut bytes);
        log.runs.push_back(Run { segment: segment.clone(), offset, bytes, last_lsn: draft.lsn });
    }

    /// Makes sure that the active segment takes `total` more bytes.
    fn ensure_room(&self, log: &mut MutexGuard<'_, Log>, total: u64) -> Result<()> {
        if log.offset + total <= log.active.header.size {
            return Ok(());
        }
        let needed = total + HEADER_BYTES as u64;
        let next = match log.spare.take() {
            Some(spare) if spare.header.size >= needed => spare,
            unfit => {
                // A segment made now has a higher number than the spare and must come after it in the log.
                if let Some(unfit) = unfit {
                    self.segments.write().remove(&unfit.number());
                    crate::segment::remove_quietly(&*self.medium, &unfit.name());
                }
                // On a full disk a small one must do, so that deletions are still taken.
                let usual = self.options.log_segment_bytes.max(needed);
                let small = self.options.first_segment_bytes.max(needed).min(usual);
                match self.make_segment(Kind::Log, usual) {
                    Err(StoreError::NoSpace { .. }) => {
                        self.with_room(|| self.make_segment(Kind::Log, small))?
                    }
                    other => other?,
                }
            }
        };
        log.active = next.clone();
        log.offset = HEADER_BYTES as u64;
        log.unsynced_logs.push(next);
        Ok(())
    }

    /// Returns when record `lsn` and all below it are written; takes its turn as the writer.
    pub(crate) fn write_out(&self, log: &mut MutexGuard<'_, Log>, lsn: Lsn) -> Result<()> {
        while log.written_lsn < lsn {
            log.check()?;
            if log.writing || log.runs.is_empty() {
                self.log_changed.wait(log);
                continue;
            }
            self.write_run(log)?;
        }
        Ok(())
    }

    /// Writes the first run. The caller has seen that nobody else is writing.
    pub(crate) fn write_run(&self, log: &mut MutexGuard<'_, Log>) -> Result<()> {
        let Some(run) = log.runs.pop_front() else { return Ok(()) };
        log.writing = true;
        let segment = run.segment.clone();
        let last_lsn = run.last_lsn;
        let written = MutexGuard::unlocked(log, || {
            failpoint!(self.options.failpoints, "log.write.before");
            let mut retained = segment.retained.lock();
            // Kept before it is written: should the write fail, the bytes are needed.
            retained.push(Retained { offset: run.offset, bytes: run.bytes, written: false });
            let file = segment.file();
            let written = match retained.last_mut() {
                Some(last) => {
                    // Where the medium copies what it overwrites, a full disk shows here, and room helps.
                    let written = self.with_room(|| {
                        let written = write_all_at(&*file, &last.bytes, last.offset);
                        written.map_err(|error| StoreError::io("write to the log", &segment.name(), error))
                    });
                    last.written = written.is_ok();
                    written
                }
                None => Ok(()),
            };
            drop(retained);
            failpoint!(self.options.failpoints, "log.write.after");
            written
        });
        if let Err(error) = written {
            tracing::warn!(%error, segment = segment.name(), "writing the log failed, writing the segment anew");
            if let Err(error) = self.rescue(log, &segment) {
                log.writing = false;
                return Err(self.fail(log, format!("the log cannot be written: {error}")));
            }
        }
        log.writing = false;
        log.written_lsn = log.written_lsn.max(last_lsn);
        self.written.store(log.written_lsn, Ordering::Release);
        self.log_changed.notify_all();
        Ok(())
    }

    /// Returns when record `lsn` can be read from the medium.
    pub(crate) fn wait_written(&self, lsn: Lsn) -> Result<()> {
        if self.written.load(Ordering::Acquire) >= lsn {
            return Ok(());
        }
        self.write_out(&mut self.log.lock(), lsn)
    }

    /// Says in the log itself how far it is durable, so that damage below can be told from a torn tail.
    pub(crate) fn write_mark(&self, kind: RecordKind) -> Result<()> {
        let mut log = self.log.lock();
        log.check()?;
        let idle = log.written_lsn == log.last_lsn();
        if kind == RecordKind::Mark && (log.marked_lsn >= log.durable_lsn || !idle) {
            return Ok(());
        }
        let (lsn, durable) = (log.last_lsn(), log.durable_lsn);
        let draft =
            Draft { lsn, durable, kind, ranges: &[], changes: &[], place: None, inline: &[], inline_refs: 0 };
        let total = draft.total_len() as u64;
        self.ensure_room(&mut log, total)?;
        let segment = log.active.clone();
        self.seal_into_runs(&mut log, &segment, &draft, self.nonces.take(), total);
        while log.writing {
            self.log_changed.wait(&mut log);
        }
        while !log.runs.is_empty() {
            self.write_run(&mut log)?;
        }
        Ok(())
    }
}

fn check_limits(txn: &Txn) -> Result<()> {
    let takes_ranges = |span: &Span| span.from().table().is_some_and(Table::has_ranges);
    let refused = txn.ranges.len() > limits::TXN_RANGES_MAX
        || (!txn.ranges.is_empty() && txn.payload.is_some())
        || !txn.ranges.iter().all(takes_ranges);
    if refused {
        return Err(StoreError::RangesRefused);
    }
    for key in txn.ranges.iter().flat_map(|span| [span.from(), span.to()]) {
        check_size("key", key.as_slice().len() - 1, limits::KEY_BYTES_MAX)?;
    }
    for (key, image) in &txn.ops {
        let key = key.as_slice();
        if key.first() == Some(&Table::Payload.tag()) {
            return Err(StoreError::ReservedTable);
        }
        let cut = if let Image::AfterCut(_) = image { size_of::<Lsn>() } else { 0 };
        check_size("key", key.len() - 1 + cut, limits::KEY_BYTES_MAX)?;
        if let Image::Put(value) | Image::AfterCut(value) = image {
            check_size("value", value.len(), limits::VALUE_BYTES_MAX)?;
        }
    }
    Ok(())
}
