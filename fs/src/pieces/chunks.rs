//! Plain chunks for readers: decoded cache, local piece, network.
//!
//! Owns: the decoded cache. Promises: a chunk's bytes are those of its row or an error; two readers of one chunk fetch it once.
//! Bounded: the cache by bytes, a read by the fetch deadline.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_content::block::{CODEC_RAW, cid_from_digest};
use holdfast_content::chunk::{self, ChunkKey, Codec};
use holdfast_content::retrieve::Priority;
use lru::LruCache;
use parking_lot::{Condvar, Mutex};

use super::blocks::{BlockReader, Want};
use crate::drive::error::DriveError;
use crate::rows::ChunkRow;
use crate::vfs::seams::{ChunkError, ChunkSource};

/// See the module's documentation.
pub(crate) struct Chunks {
    blocks: Arc<BlockReader>,
    deadline: Duration,
    cache: Mutex<Cache>,
    flights: Mutex<HashMap<[u8; 32], Arc<Flight>>>,
}

struct Cache {
    chunks: LruCache<[u8; 32], Arc<[u8]>>,
    bytes: usize,
    bytes_max: usize,
}

/// A read under way; others wait for it rather than read the same.
#[derive(Default)]
struct Flight {
    done: Mutex<Option<Result<Arc<[u8]>, ChunkError>>>,
    ready: Condvar,
}

impl Chunks {
    pub(crate) fn new(blocks: Arc<BlockReader>, cache_bytes_max: usize, deadline: Duration) -> Self {
        let cache = Cache { chunks: LruCache::unbounded(), bytes: 0, bytes_max: cache_bytes_max };
        Self { blocks, deadline, cache: Mutex::new(cache), flights: Mutex::new(HashMap::new()) }
    }

    /// Reads a chunk for a seal: no cache is filled, and it may take longer.
    pub(crate) fn read_for_seal(&self, row: &ChunkRow, deadline: Duration) -> Result<Arc<[u8]>, ChunkError> {
        if let Some(plain) = self.cache.lock().chunks.get(&row.digest) {
            return Ok(plain.clone());
        }
        Ok(self.open(row, self.blocks.want(Priority::Bulk, deadline))?)
    }

    fn open(&self, row: &ChunkRow, want: Want) -> Result<Arc<[u8]>, DriveError> {
        let codec = Codec::from_byte(row.codec)
            .ok_or_else(|| DriveError::damaged("chunk", format!("codec {} is unknown here", row.codec)))?;
        let block = self.blocks.read(&cid_from_digest(CODEC_RAW, &row.digest), want)?;
        let plain = chunk::open(&block, &ChunkKey::from_bytes(row.key), codec, row.plain_len)
            .map_err(|error| DriveError::damaged("chunk", error))?;
        Ok(plain.into())
    }

    fn cached(&self, row: &ChunkRow) -> Option<Arc<[u8]>> {
        let plain = self.cache.lock().chunks.get(&row.digest).cloned()?;
        // Equal blocks have equal plaintext; a row that lies about the length does not get past `open`.
        (plain.len() == row.plain_len as usize).then_some(plain)
    }

    fn fly(&self, row: &ChunkRow) -> Result<Arc<[u8]>, ChunkError> {
        let want = self.blocks.want(Priority::Interactive, self.deadline);
        let plain = self.open(row, want)?;
        self.cache.lock().put(row.digest, plain.clone());
        Ok(plain)
    }
}

impl ChunkSource for Chunks {
    fn read_chunk(&self, row: &ChunkRow) -> Result<Arc<[u8]>, ChunkError> {
        if let Some(plain) = self.cached(row) {
            return Ok(plain);
        }
        let (flight, leader) = {
            let mut flights = self.flights.lock();
            match flights.get(&row.digest) {
                Some(flight) => (flight.clone(), false),
                None => {
                    let flight = Arc::new(Flight::default());
                    flights.insert(row.digest, flight.clone());
                    (flight, true)
                }
            }
        };
        if leader {
            let result = self.fly(row);
            self.flights.lock().remove(&row.digest);
            *flight.done.lock() = Some(result.clone());
            flight.ready.notify_all();
            return result;
        }
        let mut done = flight.done.lock();
        while done.is_none() {
            // The leader is bounded by the same deadline; a second on top for its own arithmetic.
            if flight.ready.wait_for(&mut done, self.deadline + Duration::from_secs(1)).timed_out() {
                return Err(ChunkError::Unreachable);
            }
        }
        done.clone().unwrap_or(Err(ChunkError::Unreachable))
    }

    fn is_local(&self, row: &ChunkRow) -> bool {
        if self.cached(row).is_some() {
            return true;
        }
        let cid = cid_from_digest(CODEC_RAW, &row.digest);
        if self.blocks.is_fetched(&cid) {
            return true;
        }
        self.blocks.local_row(&row.digest).is_some_and(|at| self.blocks.is_local(&at))
    }
}

impl Cache {
    fn put(&mut self, digest: [u8; 32], plain: Arc<[u8]>) {
        self.bytes += plain.len();
        if let Some((_, old)) = self.chunks.push(digest, plain) {
            self.bytes -= old.len();
        }
        while self.bytes > self.bytes_max {
            let Some((_, old)) = self.chunks.pop_lru() else { break };
            self.bytes -= old.len();
        }
    }
}
