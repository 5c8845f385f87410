//! The index in memory: the fake, which knows what a crash would leave of it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::{Batch, Index, IndexRead, Open, Visit, Write};
use crate::Direction;
use crate::error::Result;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Clones share the same rows.
#[derive(Clone, Default)]
pub struct MemoryIndex(Arc<RwLock<State>>);

#[derive(Default, Clone)]
struct State {
    live: Arc<Map>,
    durable: Arc<Map>,
}

impl MemoryIndex {
    pub fn new() -> Self {
        MemoryIndex::default()
    }

    /// The index that the next process finds after a power cut or a kill: what was flushed.
    pub fn after_crash(&self) -> MemoryIndex {
        let durable = self.0.read().durable.clone();
        MemoryIndex(Arc::new(RwLock::new(State { live: durable.clone(), durable })))
    }

    /// All values as they would lie on disk.
    pub fn contents(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        (*self.0.read().live).clone()
    }
}

impl std::fmt::Debug for MemoryIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryIndex({} rows)", self.0.read().live.len())
    }
}

impl Index for MemoryIndex {
    fn get(&self, key: &[u8], open: Open<'_>) -> Result<Option<Bytes>> {
        self.0.read().live.get(key).map(|value| open(value)).transpose()
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>> {
        let state = self.0.read();
        Ok(keys.iter().map(|key| state.live.get(*key).cloned()).collect())
    }

    fn snapshot(&self) -> Arc<dyn IndexRead> {
        Arc::new(MemorySnapshot(self.0.read().live.clone()))
    }

    fn write(&self, batch: Batch<'_>, _bytes: usize) -> Result<()> {
        let batch = batch.collect::<Result<Vec<_>>>()?;
        let mut state = self.0.write();
        let live = Arc::make_mut(&mut state.live);
        for change in batch {
            match change {
                Write::Put(key, value) => _ = live.insert(key.to_vec(), value),
                Write::Delete(key) => _ = live.remove(key),
                Write::DeleteRange(from, to) => {
                    live.retain(|key, _| key.as_slice() < from || key.as_slice() >= to)
                }
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        let mut state = self.0.write();
        state.durable = state.live.clone();
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}

struct MemorySnapshot(Arc<Map>);

impl IndexRead for MemorySnapshot {
    fn get(&self, key: &[u8], open: Open<'_>) -> Result<Option<Bytes>> {
        self.0.get(key).map(|value| open(value)).transpose()
    }

    fn scan(
        &self,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<()> {
        let range = self.0.range::<[u8], _>((start, end));
        match direction {
            Direction::Forward => {
                for (key, value) in range {
                    if !visit(key, value) {
                        break;
                    }
                }
            }
            Direction::Reverse => {
                for (key, value) in range.rev() {
                    if !visit(key, value) {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}
