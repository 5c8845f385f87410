//! Decoded values of rows that were read from the index, so that a hot row is not decrypted again.
//!
//! The one danger is a stale value: a reader fetches the old value from the index, the index receives a newer one, then the
//! reader stores what it has. So each reader remembers the index's generation from before its look at the delta and may
//! store only while it is the same; a flush raises it before its batch and replaces what is cached after it.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use crate::Table;
use crate::delta::Rows;
use crate::key::Key;

const SHARDS: usize = 16;
/// Memory of an entry beside its value: key, list links, table.
const ENTRY_BYTES: usize = 144;

/// Where the rows of a batch are so many times more, the cached ones are looked for among them, which are in order.
const FEWER: usize = 2;

pub(crate) struct RowCache {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    generation: AtomicU64,
    shard_bytes_max: usize,
}

struct Shard {
    rows: LruCache<Key, Bytes>,
    bytes: usize,
}

impl Shard {
    /// The index has another value now, or none.
    fn replace(&mut self, key: &Key, value: Option<&Bytes>) {
        let Some(cached) = self.rows.peek_mut(key.as_slice()) else { return };
        let old = cached.len();
        match value {
            Some(value) => {
                *cached = value.clone();
                self.bytes = (self.bytes + value.len()).saturating_sub(old);
            }
            None => {
                self.rows.pop(key.as_slice());
                self.bytes = self.bytes.saturating_sub(ENTRY_BYTES + old);
            }
        }
    }
}

impl RowCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let shard = || Mutex::new(Shard { rows: LruCache::unbounded(), bytes: 0 });
        RowCache {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: RandomState::new(),
            generation: AtomicU64::new(0),
            shard_bytes_max: bytes_max / SHARDS,
        }
    }

    fn shard(&self, key: &[u8]) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// To be taken before the delta is looked at.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.shard(key).lock().rows.get(key).cloned()
    }

    /// Stores what the index said, unless the index may have changed since `generation`. Rows that go by ranges are not kept: they could not be found then.
    pub(crate) fn insert(&self, generation: u64, key: Key, value: Bytes) {
        if key.table().is_some_and(Table::has_ranges) {
            return;
        }
        let mut shard = self.shard(key.as_slice()).lock();
        if self.generation.load(Ordering::Acquire) != generation {
            return;
        }
        shard.bytes += ENTRY_BYTES + value.len();
        if let Some((_, old)) = shard.rows.push(key, value) {
            shard.bytes = shard.bytes.saturating_sub(ENTRY_BYTES + old.len());
        }
        while shard.bytes > self.shard_bytes_max {
            let Some((_, old)) = shard.rows.pop_lru() else { break };
            shard.bytes = shard.bytes.saturating_sub(ENTRY_BYTES + old.len());
        }
    }

    /// Before a batch is written to the index.
    pub(crate) fn begin_batch(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// After the batch, while the delta still covers its rows.
    pub(crate) fn end_batch(&self, rows: &Rows) {
        let cached: usize = self.shards.iter().map(|shard| shard.lock().rows.len()).sum();
        if cached * FEWER < rows.len() {
            // A bulk of new rows, of which few or none can be here.
            for shard in &self.shards {
                let mut shard = shard.lock();
                let both: Vec<Key> = shard
                    .rows
                    .iter()
                    .map(|(key, _)| key)
                    .filter(|key| rows.contains_key(*key))
                    .cloned()
                    .collect();
                for (key, value) in both.iter().filter_map(|key| rows.get_key_value(key)) {
                    shard.replace(key, value.as_ref());
                }
            }
        } else {
            for (key, value) in rows {
                self.shard(key.as_slice()).lock().replace(key, value.as_ref());
            }
        }
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().bytes).sum()
    }
}
