//! The delta: the rows that the index does not have yet, and the merge of both in reads.
//!
//! One active layer takes changes. Freezing puts it behind the earlier frozen ones and begins a new one: the cost of a
//! pointer, whatever the size, which is what makes snapshots cheap for writers. A frozen layer never changes; it leaves the
//! view when the index has it on disk, and lives on in the snapshots that began with it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::index::IndexRead;
use crate::key::{Key, Span};
use crate::ledger::Ledger;
use crate::record::Change;
use crate::{Direction, Lsn};

pub(crate) type Rows = BTreeMap<Key, Option<Bytes>>;

/// Memory of a map entry beside what its key and value keep on the heap: both structs and the tree's share.
const ENTRY_BYTES: usize = size_of::<(Key, Option<Bytes>)>() + 24;

/// Rows of records `..= last_lsn` since the layer before.
#[derive(Default)]
pub(crate) struct Layer {
    /// Below these nothing of the layers before and of the index is left; the rows of this one stand.
    pub(crate) ranges: Vec<Span>,
    pub(crate) rows: Rows,
    pub(crate) bytes: usize,
    pub(crate) last_lsn: Lsn,
    /// The ledger as of `last_lsn`; set when the layer is frozen.
    pub(crate) ledger: Ledger,
}

impl Layer {
    /// Applies a record: its ranges, then its rows.
    pub(crate) fn apply(&mut self, lsn: Lsn, ranges: Vec<Span>, changes: Vec<Change>) {
        for span in ranges {
            for (key, value) in take_span(&mut self.rows, &span) {
                let len = value.map_or(0, |value| value.len());
                self.bytes = self.bytes.saturating_sub(ENTRY_BYTES + key.heap_len() + len);
            }
            self.bytes += size_of::<Span>() + span.from().heap_len() + span.to().heap_len();
            self.ranges.push(span);
        }
        for (key, value) in changes {
            let heap = key.heap_len();
            let len = value.as_ref().map_or(0, Bytes::len);
            match self.rows.insert(key, value) {
                None => self.bytes += ENTRY_BYTES + heap + len,
                Some(old) => self.bytes = (self.bytes + len).saturating_sub(old.map_or(0, |old| old.len())),
            }
        }
        self.last_lsn = lsn;
    }

    /// The newest image that this layer has: `None` if it says nothing of the key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        let found = self.rows.get(key).cloned();
        found.or_else(|| self.ranges.iter().any(|span| span.contains(key)).then_some(None))
    }

    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.ranges.is_empty()
    }
}

/// Layers in front of the index, newest last.
#[derive(Default)]
pub(crate) struct View {
    pub(crate) active: Layer,
    pub(crate) frozen: Vec<Arc<Layer>>,
}

impl View {
    /// The newest image in memory: `None` if only the index can know.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        self.active.get(key).or_else(|| find(&self.frozen, key))
    }

    /// Puts the active layer, which goes up to record `last_lsn`, behind the frozen ones.
    pub(crate) fn freeze(&mut self, last_lsn: Lsn, ledger: &Ledger) {
        if self.active.is_empty() {
            return;
        }
        let mut layer = std::mem::take(&mut self.active);
        layer.last_lsn = last_lsn;
        layer.ledger = ledger.clone();
        self.frozen.push(Arc::new(layer));
    }

    pub(crate) fn frozen_bytes(&self) -> usize {
        self.frozen.iter().map(|layer| layer.bytes).sum()
    }
}

/// Takes the rows of a range out.
fn take_span(rows: &mut Rows, span: &Span) -> Vec<(Key, Option<Bytes>)> {
    let within = (Bound::Included(span.from().as_slice()), Bound::Excluded(span.to().as_slice()));
    let keys: Vec<Key> = rows.range::<[u8], _>(within).map(|(key, _)| key.clone()).collect();
    keys.iter().filter_map(|key| rows.remove_entry(key)).collect()
}

/// The newest image in frozen layers.
pub(crate) fn find(layers: &[Arc<Layer>], key: &[u8]) -> Option<Option<Bytes>> {
    layers.iter().rev().find_map(|layer| layer.get(key))
}

/// A range of full keys with the rest of a scan.
pub(crate) struct Cursor {
    pub(crate) start: Bound<Vec<u8>>,
    pub(crate) end: Bound<Vec<u8>>,
    pub(crate) direction: Direction,
}

impl Cursor {
    pub(crate) fn start(&self) -> Bound<&[u8]> {
        as_slice(&self.start)
    }

    pub(crate) fn end(&self) -> Bound<&[u8]> {
        as_slice(&self.end)
    }

    pub(crate) fn is_empty(&self) -> bool {
        match (&self.start, &self.end) {
            (Bound::Included(a), Bound::Included(b)) => a > b,
            (Bound::Included(a), Bound::Excluded(b))
            | (Bound::Excluded(a), Bound::Included(b))
            | (Bound::Excluded(a), Bound::Excluded(b)) => a >= b,
            _ => false,
        }
    }

    /// What is left once `key` has been passed.
    fn pass(&mut self, key: &[u8]) {
        match self.direction {
            Direction::Forward => self.start = Bound::Excluded(key.to_vec()),
            Direction::Reverse => self.end = Bound::Excluded(key.to_vec()),
        }
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// Rows of the layers in a range, as far as they were collected.
#[derive(Default)]
pub(crate) struct Collected {
    rows: Rows,
    /// In these nothing of the index is left.
    ranges: Vec<Span>,
    /// The key beyond which some layer has more.
    stop: Option<Key>,
}

impl Collected {
    /// Adds at most `max` rows of `layer`. Must be called from the oldest layer to the newest.
    pub(crate) fn add(&mut self, layer: &Layer, cursor: &Cursor, max: usize) {
        if cursor.is_empty() {
            return;
        }
        for span in &layer.ranges {
            drop(take_span(&mut self.rows, span));
            self.ranges.push(span.clone());
        }
        let range = layer.rows.range::<[u8], _>((cursor.start(), cursor.end()));
        let mut last = None;
        let mut count = 0;
        let mut take = |(key, value): (&Key, &Option<Bytes>)| {
            self.rows.insert(key.clone(), value.clone());
            last = Some(key.clone());
            count += 1;
        };
        match cursor.direction {
            Direction::Forward => range.take(max).for_each(&mut take),
            Direction::Reverse => range.rev().take(max).for_each(&mut take),
        }
        if count == max {
            self.stop = match (self.stop.take(), last) {
                (Some(a), Some(b)) => Some(match cursor.direction {
                    Direction::Forward => a.min(b),
                    Direction::Reverse => a.max(b),
                }),
                (a, b) => a.or(b),
            };
        }
    }

    /// Merges with the index, appending to `out` up to `limit` rows in all, and moves the cursor past what was covered.
    /// Gives whether the range (or the limit) is exhausted.
    pub(crate) fn merge(
        mut self,
        index: &dyn IndexRead,
        cursor: &mut Cursor,
        limit: usize,
        out: &mut Vec<(Vec<u8>, Bytes)>,
        open: &dyn Fn(&[u8], &[u8]) -> Result<Bytes>,
    ) -> Result<bool> {
        let forward = cursor.direction == Direction::Forward;
        if let Some(stop) = &self.stop {
            // Beyond the stop the layers are not fully known.
            let beyond = |key: &Key| if forward { key > stop } else { key < stop };
            self.rows.retain(|key, _| !beyond(key));
        }
        let (start, end) = match (&self.stop, forward) {
            (None, _) => (cursor.start(), cursor.end()),
            (Some(stop), true) => (cursor.start(), Bound::Included(stop.as_slice())),
            (Some(stop), false) => (Bound::Included(stop.as_slice()), cursor.end()),
        };
        let rows: Vec<(Key, Option<Bytes>)> =
            if forward { self.rows.into_iter().collect() } else { self.rows.into_iter().rev().collect() };
        let mut rows = rows.into_iter().peekable();
        let mut failed = None;
        let (start, end) = (start.map(<[u8]>::to_vec), end.map(<[u8]>::to_vec));
        let mut rest = Cursor { start, end, direction: cursor.direction };
        while out.len() < limit && !rest.is_empty() {
            let mut hidden: Option<&Span> = None;
            index.scan(rest.start(), rest.end(), rest.direction, &mut |key, sealed| {
                let before = |row: &Key| if forward { row.as_slice() < key } else { row.as_slice() > key };
                while out.len() < limit {
                    let Some((row, value)) = rows.next_if(|(row, _)| before(row)) else { break };
                    out.extend(value.map(|value| (row.as_slice().to_vec(), value)));
                }
                if out.len() >= limit {
                    return false;
                }
                if let Some((row, value)) = rows.next_if(|(row, _)| row.as_slice() == key) {
                    out.extend(value.map(|value| (row.as_slice().to_vec(), value)));
                } else if let Some(span) = self.ranges.iter().find(|span| span.contains(key)) {
                    hidden = Some(span);
                    return false;
                } else {
                    match open(key, sealed) {
                        Ok(value) => out.push((key.to_vec(), value)),
                        Err(error) => failed = Some(error),
                    }
                }
                out.len() < limit && failed.is_none()
            })?;
            // Behind what a range hides, however much that is.
            let Some(span) = hidden else { break };
            match rest.direction {
                Direction::Forward => rest.start = Bound::Included(span.to().as_slice().to_vec()),
                Direction::Reverse => rest.end = Bound::Excluded(span.from().as_slice().to_vec()),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        while out.len() < limit {
            let Some((row, value)) = rows.next() else { break };
            out.extend(value.map(|value| (row.as_slice().to_vec(), value)));
        }
        match self.stop {
            Some(stop) if out.len() < limit => {
                cursor.pass(stop.as_slice());
                Ok(cursor.is_empty())
            }
            _ => Ok(true),
        }
    }
}
