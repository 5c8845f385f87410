//! The store's parts and how they share work.
//!
//! Locks, always taken in this order: `checkpoint`, `log`, `data`, `view`, `segments`, a segment's own, `cache`. `log` orders
//! records: it is held while a record is encoded and sealed (microseconds), never while the medium works, with one
//! exception: a new segment that was not prepared in time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};

use crate::ambient::{Clock, NoncePool};
use crate::ballast::Ballast;
use crate::cache::RowCache;
use crate::cipher::ValueCipher;
use crate::delta::{Collected, Cursor, View};
use crate::error::Result;
use crate::forge::Forge;
use crate::index::{Index, IndexRead};
use crate::key::Key;
use crate::ledger::Ledger;
use crate::medium::StorageMedium;
use crate::payload::{DataTail, Place};
use crate::segment::{Kind, Segment};
use crate::worker::Bell;
use crate::{Direction, KeyRange, Lsn, Row, StoreError, StoreOptions, Table};

pub(crate) struct Inner {
    pub(crate) medium: Arc<dyn StorageMedium>,
    pub(crate) index: Arc<dyn Index>,
    pub(crate) options: StoreOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) nonces: Arc<NoncePool>,
    pub(crate) forge: Forge,
    pub(crate) ballast: Ballast,
    /// The last flush of the index found no room.
    pub(crate) flush_again: AtomicBool,
    pub(crate) values: ValueCipher,
    /// Held by whoever moves frozen layers into the index, or retires segments.
    pub(crate) checkpoint: Mutex<()>,
    pub(crate) log: Mutex<Log>,
    /// Told whenever `written_lsn`, `durable_lsn`, `writing`, `syncing` or `mode` changes.
    pub(crate) log_changed: Condvar,
    pub(crate) data: Mutex<DataTail>,
    pub(crate) view: RwLock<View>,
    pub(crate) segments: RwLock<HashMap<u64, Arc<Segment>>>,
    pub(crate) cache: RowCache,
    /// How many snapshots there are of each LSN.
    pub(crate) snapshots: Mutex<BTreeMap<Lsn, usize>>,
    pub(crate) written: AtomicU64,
    pub(crate) applied: AtomicU64,
    pub(crate) unsynced: AtomicU64,
    pub(crate) delta_bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) syncs_failed: AtomicU64,
    pub(crate) bell: Arc<Bell>,
}

/// The head of the log.
pub(crate) struct Log {
    pub(crate) mode: Mode,
    pub(crate) next_lsn: Lsn,
    pub(crate) written_lsn: Lsn,
    pub(crate) durable_lsn: Lsn,
    /// The durable mark that the log itself holds.
    pub(crate) marked_lsn: Lsn,
    pub(crate) active: Arc<Segment>,
    /// Where the next record begins in `active`.
    pub(crate) offset: u64,
    /// Prepared for the moment when `active` is full.
    pub(crate) spare: Option<Arc<Segment>>,
    /// Sealed and not yet written, in order.
    pub(crate) runs: VecDeque<Run>,
    pub(crate) writing: bool,
    pub(crate) syncing: bool,
    /// Log segments with unsynced bytes, in order; `active` is the last of them.
    pub(crate) unsynced_logs: Vec<Arc<Segment>>,
    pub(crate) ledger: Ledger,
    /// The last record of the newest cut; after a start that of the recovered log.
    pub(crate) cut: Lsn,
    pub(crate) records_since_flush: u64,
    pub(crate) bytes_since_flush: u64,
    pub(crate) flushed_at: Duration,
}

/// Bytes for one place of one segment.
pub(crate) struct Run {
    pub(crate) segment: Arc<Segment>,
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) last_lsn: Lsn,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    Normal,
    ReadOnly(String),
    Closed,
}

impl Log {
    pub(crate) fn last_lsn(&self) -> Lsn {
        self.next_lsn - 1
    }

    pub(crate) fn check(&self) -> Result<()> {
        match &self.mode {
            Mode::Normal => Ok(()),
            Mode::ReadOnly(reason) => Err(StoreError::ReadOnly { reason: reason.clone() }),
            Mode::Closed => Err(StoreError::Closed),
        }
    }
}

impl Inner {
    pub(crate) fn segment(&self, number: u64) -> Option<Arc<Segment>> {
        self.segments.read().get(&number).cloned()
    }

    /// From now on the store takes no changes.
    pub(crate) fn fail(&self, log: &mut MutexGuard<'_, Log>, reason: String) -> StoreError {
        if log.mode == Mode::Normal {
            tracing::error!(%reason, "the store turns read-only");
            log.mode = Mode::ReadOnly(reason.clone());
        }
        self.log_changed.notify_all();
        StoreError::ReadOnly { reason }
    }

    /// A new segment, ready for its first byte and known to readers.
    pub(crate) fn make_segment(&self, kind: Kind, size: u64) -> Result<Arc<Segment>> {
        let segment = self.forge.make(kind, size)?;
        self.segments.write().insert(segment.number(), segment.clone());
        Ok(segment)
    }

    /// The current value of a row.
    pub(crate) fn get(&self, table: Table, row: &[u8]) -> Result<Option<Bytes>> {
        self.get_key(&Key::new(table, row))
    }

    pub(crate) fn get_key(&self, key: &Key) -> Result<Option<Bytes>> {
        let generation = self.cache.generation();
        if let Some(found) = self.view.read().get(key.as_slice()) {
            return Ok(found);
        }
        if let Some(value) = self.cache.get(key.as_slice()) {
            return Ok(Some(value));
        }
        let open = |sealed: &[u8]| self.values.open(key.as_slice(), sealed);
        let Some(value) = self.index.get(key.as_slice(), &open)? else { return Ok(None) };
        self.cache.insert(generation, key.clone(), value.clone());
        Ok(Some(value))
    }

    pub(crate) fn multi_get(&self, table: Table, rows: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        let keys: Vec<Key> = rows.iter().map(|row| Key::new(table, row)).collect();
        let generation = self.cache.generation();
        let mut found: Vec<Option<Option<Bytes>>> = {
            let view = self.view.read();
            keys.iter().map(|key| view.get(key.as_slice())).collect()
        };
        let mut missing = Vec::new();
        for (nth, (key, found)) in keys.iter().zip(&mut found).enumerate() {
            if found.is_none() {
                *found = self.cache.get(key.as_slice()).map(Some);
            }
            if found.is_none() {
                missing.push(nth);
            }
        }
        let asked: Vec<&[u8]> = missing.iter().map(|nth| keys[*nth].as_slice()).collect();
        let answers = if asked.is_empty() { Vec::new() } else { self.index.multi_get(&asked)? };
        for (nth, sealed) in missing.into_iter().zip(answers) {
            let Some(sealed) = sealed else { continue };
            let value = self.values.open(keys[nth].as_slice(), &sealed)?;
            self.cache.insert(generation, keys[nth].clone(), value.clone());
            found[nth] = Some(Some(value));
        }
        Ok(found.into_iter().map(Option::flatten).collect())
    }

    pub(crate) fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        limit: usize,
        way: Direction,
    ) -> Result<Vec<Row>> {
        let open = |key: &[u8], sealed: &[u8]| self.values.open(key, sealed);
        scan_layers(table, range, limit, way, &open, &|cursor, max| self.look(cursor, max))
    }

    pub(crate) fn scan_keys(
        &self,
        table: Table,
        range: &KeyRange,
        limit: usize,
        way: Direction,
    ) -> Result<Vec<Vec<u8>>> {
        let rows = scan_layers(table, range, limit, way, &unopened, &|cursor, max| self.look(cursor, max))?;
        Ok(rows.into_iter().map(|(key, _)| key).collect())
    }

    /// Layers and index in one moment: the lock keeps the active layer from being frozen, and so anything newer than it from reaching the index.
    fn look(&self, cursor: &Cursor, max: usize) -> (Collected, Arc<dyn IndexRead>) {
        let mut collected = Collected::default();
        let view = self.view.read();
        for layer in &view.frozen {
            collected.add(layer, cursor, max);
        }
        collected.add(&view.active, cursor, max);
        (collected, self.index.snapshot())
    }

    pub(crate) fn place(&self, lsn: Lsn) -> Result<Option<Place>> {
        decode_place(lsn, self.get(Table::Payload, &lsn.to_be_bytes())?)
    }
}

pub(crate) fn decode_place(lsn: Lsn, row: Option<Bytes>) -> Result<Option<Place>> {
    let Some(row) = row else { return Ok(None) };
    match Place::decode(&row) {
        Some(place) if place.lsn == lsn => Ok(Some(place)),
        _ => Err(StoreError::corrupt(format!("place row of payload {lsn}"))),
    }
}

/// In the place of a value that nobody asked for.
pub(crate) fn unopened(_key: &[u8], _sealed: &[u8]) -> Result<Bytes> {
    Ok(Bytes::new())
}

/// A scan over layers and an index, both given by `look` for each chunk.
pub(crate) fn scan_layers(
    table: Table,
    range: &KeyRange,
    limit: usize,
    direction: Direction,
    open: &dyn Fn(&[u8], &[u8]) -> Result<Bytes>,
    look: &dyn Fn(&Cursor, usize) -> (Collected, Arc<dyn IndexRead>),
) -> Result<Vec<Row>> {
    let mut cursor = full_cursor(table, range, direction);
    let mut out: Vec<Row> = Vec::new();
    while out.len() < limit && !cursor.is_empty() {
        let max = (limit - out.len()).saturating_mul(2).saturating_add(SCAN_CHUNK_MIN).min(SCAN_CHUNK_MAX);
        let (collected, index) = look(&cursor, max);
        if collected.merge(&*index, &mut cursor, limit, &mut out, open)? {
            break;
        }
    }
    for (key, _) in &mut out {
        key.remove(0);
    }
    Ok(out)
}

/// Rows taken from a layer at once: enough that a small scan needs one look, little enough that writers do not wait.
const SCAN_CHUNK_MIN: usize = 16;
const SCAN_CHUNK_MAX: usize = 4096;

fn full_cursor(table: Table, range: &KeyRange, direction: Direction) -> Cursor {
    use std::ops::Bound;
    let full = |row: &[u8]| [&[table.tag()], row].concat();
    let start = match &range.start {
        Bound::Included(row) => Bound::Included(full(row)),
        Bound::Excluded(row) => Bound::Excluded(full(row)),
        Bound::Unbounded => Bound::Included(vec![table.tag()]),
    };
    let end = match &range.end {
        Bound::Included(row) => Bound::Included(full(row)),
        Bound::Excluded(row) => Bound::Excluded(full(row)),
        Bound::Unbounded => Bound::Excluded(vec![table.tag() + 1]),
    };
    Cursor { start, end, direction }
}
