//! Snapshots: the store as of exactly one record.
//!
//! Taking one freezes the delta and takes a snapshot of the index, both at one moment under the log lock: no flush, no copy,
//! nothing that a writer waits for. The layers stay in memory until the snapshot is dropped; payloads released after it
//! stay on disk until then.

use std::sync::Arc;

use bytes::Bytes;

use crate::delta::{Collected, Cursor, Layer, find};
use crate::error::Result;
use crate::index::IndexRead;
use crate::index::ahead::Ahead;
use crate::inner::{Inner, decode_place, scan_layers, unopened};
use crate::key::Key;
use crate::store::Reads;
use crate::{Direction, KeyRange, Lsn, Row, StoreError, Table};

/// See the module's documentation. Clones share the same moment.
#[derive(Clone)]
pub struct Snapshot(Arc<Moment>);

struct Moment {
    inner: Arc<Inner>,
    lsn: Lsn,
    layers: Vec<Arc<Layer>>,
    index: Arc<dyn IndexRead>,
}

impl Moment {
    fn look(&self, cursor: &Cursor, max: usize) -> (Collected, Arc<dyn IndexRead>) {
        let mut collected = Collected::default();
        for layer in &self.layers {
            collected.add(layer, cursor, max);
        }
        (collected, self.index.clone())
    }
}

impl Drop for Moment {
    fn drop(&mut self) {
        let mut snapshots = self.inner.snapshots.lock();
        if let Some(count) = snapshots.get_mut(&self.lsn) {
            *count -= 1;
            if *count == 0 {
                snapshots.remove(&self.lsn);
            }
        }
    }
}

impl Inner {
    pub(crate) fn snapshot(self: &Arc<Self>, cut: bool) -> Result<Snapshot> {
        let mut log = self.log.lock();
        let lsn = self.freeze(&mut log);
        if cut {
            log.cut = lsn;
        }
        let layers = self.view.read().frozen.clone();
        let index = Arc::new(Ahead::new(self.index.snapshot()));
        *self.snapshots.lock().entry(lsn).or_insert(0) += 1;
        let snapshot = Snapshot(Arc::new(Moment { inner: self.clone(), lsn, layers, index }));
        self.write_out(&mut log, lsn)?;
        Ok(snapshot)
    }
}

impl Snapshot {
    /// The last record that the snapshot contains.
    pub fn lsn(&self) -> Lsn {
        self.0.lsn
    }
}

impl Reads for Snapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        let key = Key::new(table, key);
        if let Some(found) = find(&self.0.layers, key.as_slice()) {
            return Ok(found);
        }
        self.0.index.get(key.as_slice(), &|sealed| self.0.inner.values.open(key.as_slice(), sealed))
    }

    fn contains(&self, table: Table, key: &[u8]) -> Result<bool> {
        let key = Key::new(table, key);
        match find(&self.0.layers, key.as_slice()) {
            Some(found) => Ok(found.is_some()),
            None => Ok(self.0.index.get(key.as_slice(), &|_| Ok(Bytes::new()))?.is_some()),
        }
    }

    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        keys.iter().map(|key| self.get(table, key)).collect()
    }

    fn scan(&self, table: Table, range: &KeyRange, limit: usize, direction: Direction) -> Result<Vec<Row>> {
        let open = |key: &[u8], sealed: &[u8]| self.0.inner.values.open(key, sealed);
        scan_layers(table, range, limit, direction, &open, &|cursor, max| self.0.look(cursor, max))
    }

    fn scan_keys(
        &self,
        table: Table,
        range: &KeyRange,
        limit: usize,
        way: Direction,
    ) -> Result<Vec<Vec<u8>>> {
        let rows = scan_layers(table, range, limit, way, &unopened, &|cursor, max| self.0.look(cursor, max))?;
        Ok(rows.into_iter().map(|(key, _)| key).collect())
    }

    fn payload_len(&self, lsn: Lsn) -> Result<Option<u64>> {
        let place = decode_place(lsn, self.get(Table::Payload, &lsn.to_be_bytes())?)?;
        Ok(place.map(|place| u64::from(place.len)))
    }

    fn read_payload(&self, lsn: Lsn, skip: u64, buf: &mut [u8]) -> Result<()> {
        let place = decode_place(lsn, self.get(Table::Payload, &lsn.to_be_bytes())?)?;
        self.0.inner.read_place(&place.ok_or(StoreError::PayloadGone(lsn))?, skip, buf)
    }
}
