//! What the store is told when it is opened, and what it tells about itself.

use std::path::PathBuf;
use std::time::Duration;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::failpoint::Failpoints;
use crate::index::MemoryIndex;
use crate::{Lsn, StoreError};

/// Named limits of the format and of the engine.
pub mod limits {
    /// Payloads up to this size travel inside their record.
    pub const INLINE_PAYLOAD_BYTES_MAX: usize = 64 << 10;
    /// The largest payload. A FUSE write has at most 1 MiB.
    pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;
    /// The largest row key (without its table).
    pub const KEY_BYTES_MAX: usize = 1 << 10;
    /// The largest row value.
    pub const VALUE_BYTES_MAX: usize = 4 << 20;
    /// The rows of one transaction, encoded. A caller with more splits its work.
    pub const TXN_BYTES_MAX: usize = 16 << 20;
    /// Ranges of keys that one transaction deletes. Each is looked at by every read of their table until the index has it.
    pub const TXN_RANGES_MAX: usize = 16;
    /// Payloads are sealed in frames of this many plaintext bytes, so that a 4 KiB read opens one.
    pub const FRAME_BYTES: usize = 16 << 10;
}

/// The two keys under which the store keeps its secrets. Random for each device, held in the home's key file.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct StoreKeys {
    /// Wraps the key of each segment.
    pub log: [u8; 32],
    /// Seals the values of the index.
    pub index: [u8; 32],
}

impl std::fmt::Debug for StoreKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreKeys(..)")
    }
}

/// Where the index lives.
#[derive(Clone, Debug)]
pub enum IndexKind {
    /// RocksDB in this folder.
    Rocks(PathBuf),
    /// A fresh one in memory, forgotten with the store.
    Memory,
    /// One in memory that outlives the store and knows what a crash would leave of it.
    Shared(MemoryIndex),
}

/// Settings. The defaults are those of the product; tests make everything small.
#[derive(Clone)]
pub struct StoreOptions {
    /// Size of a log segment. It is written with zeros once.
    pub log_segment_bytes: u64,
    /// Size of the segment that a start opens when no used one can be recycled: mounting must not wait for a large one.
    pub first_segment_bytes: u64,
    /// Size of a data segment.
    pub data_segment_bytes: u64,
    /// Dead segments of each kind that are kept for reuse.
    pub recycled_segments_max: usize,
    /// Kept free for a full disk, where the medium can tell how much room it has. 0: nothing.
    pub ballast_bytes: u64,
    /// More than this is never unsynced: writers sync first.
    pub unsynced_bytes_max: u64,
    /// From here on the background syncs without waiting for its interval, so that an fsync finds little before it.
    pub unsynced_bytes_push: u64,
    /// A dirty log is synced at least this often.
    pub sync_interval: Duration,
    /// The index follows the log at the latest after so many log bytes, records, delta bytes, or so much time.
    pub flush_log_bytes: u64,
    pub flush_records: u64,
    pub flush_delta_bytes: usize,
    pub flush_interval: Duration,
    /// A layer of the delta is frozen at this size: each becomes one batch of the index, which stands in memory whole.
    pub layer_bytes_max: usize,
    /// Decoded values of rows that were read from the index.
    pub row_cache_bytes: usize,
    /// RocksDB's own memory.
    pub block_cache_bytes: usize,
    pub write_buffer_bytes: usize,
    /// Whether the store runs its two threads. Without them, the caller calls `tick`.
    pub background: bool,
    /// The hook of a test.
    pub failpoints: Failpoints,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            log_segment_bytes: 64 << 20,
            first_segment_bytes: 4 << 20,
            data_segment_bytes: 64 << 20,
            recycled_segments_max: 4,
            ballast_bytes: 64 << 20,
            unsynced_bytes_max: 64 << 20,
            unsynced_bytes_push: 16 << 20,
            sync_interval: Duration::from_secs(1),
            flush_log_bytes: 256 << 20,
            flush_records: 200_000,
            flush_delta_bytes: 24 << 20,
            flush_interval: Duration::from_secs(30),
            layer_bytes_max: 8 << 20,
            row_cache_bytes: 32 << 20,
            block_cache_bytes: 64 << 20,
            write_buffer_bytes: 32 << 20,
            background: true,
            failpoints: Failpoints::default(),
        }
    }
}

impl StoreOptions {
    /// The same store with so much memory for its caches and buffers together: the delta, of which up to three times what starts a flush may wait, takes 9/32
    /// (by its own count; its maps take half as much again), two write buffers and the block cache a quarter each, decoded rows an eighth. What is not synced yet takes no more than
    /// another eighth.
    pub fn with_memory(mut self, bytes: usize) -> Self {
        self.flush_delta_bytes = bytes * 3 / 32;
        self.layer_bytes_max = bytes / 32;
        self.write_buffer_bytes = bytes / 8;
        self.block_cache_bytes = bytes / 4;
        self.row_cache_bytes = bytes / 8;
        // What is unsynced stands in memory, too: should the sync fail, it is written anew.
        self.unsynced_bytes_max = self.unsynced_bytes_max.min(bytes as u64 / 8);
        self.unsynced_bytes_push = self.unsynced_bytes_push.min(bytes as u64 / 16);
        self
    }
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The store was made by this call.
    pub created: bool,
    /// Where the index stood.
    pub applied_lsn: Lsn,
    /// The last record of the recovered log.
    pub last_lsn: Lsn,
    /// Records replayed over the index.
    pub replayed_records: u64,
    /// Whether a tail was cut that no sync had covered, and what stood at its beginning.
    pub torn_tail: Option<String>,
    /// The index was empty and was made again from a log that reaches back to the first record.
    pub index_rebuilt: bool,
    /// The index was damaged and was set aside, as a folder beside it; what was wrong with it.
    pub index_set_aside: Option<String>,
    /// The disk has no room to begin in: the store is read-only until a start finds some.
    pub no_room: bool,
    /// A damaged record below the last durable mark. The store is read-only; the files are untouched.
    pub corruption: Option<String>,
}

/// Figures for `status` and for pacing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    pub last_lsn: Lsn,
    pub durable_lsn: Lsn,
    /// The index holds everything up to here, on disk.
    pub applied_lsn: Lsn,
    /// Bytes of all segments on disk, recycled ones included.
    pub disk_bytes: u64,
    pub log_bytes: u64,
    pub data_bytes: u64,
    pub recycled_bytes: u64,
    pub segments: usize,
    /// Plaintext bytes of payloads that rows refer to.
    pub live_payload_bytes: u64,
    pub live_payloads: u64,
    /// Written and not yet synced.
    pub unsynced_bytes: u64,
    /// Memory of the rows that the index does not have yet.
    pub delta_bytes: usize,
    pub row_cache_bytes: usize,
    pub index_bytes: u64,
    /// Syncs made, and syncs that failed and were made good by rewriting.
    pub syncs: u64,
    pub syncs_failed: u64,
    /// Why the store takes no changes.
    pub read_only: Option<String>,
}

pub(crate) fn check_size(what: &'static str, size: usize, max: usize) -> Result<(), StoreError> {
    if size > max {
        return Err(StoreError::TooLarge { what, size, max });
    }
    Ok(())
}
