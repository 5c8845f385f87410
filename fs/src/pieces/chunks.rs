//! Plain chunks for readers: decoded cache, local piece, network.
//!
//! Owns: the decoded cache. Promises: a chunk's bytes are those of its row or an error; two readers of one chunk fetch it once; what one read
//! needs is asked for together; who finds a chunk fetched ahead waits for that, but not long ([`AHEAD_PATIENCE`]).
//! Bounded: the cache by bytes, a read by the fetch deadline.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cid::Cid;
use holdfast_content::block::{Block, CODEC_RAW, cid_from_digest};
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
    chunks: LruCache<[u8; 32], Bytes>,
    bytes: usize,
    bytes_max: usize,
}

/// What was fetched ahead goes behind what somebody waits for, so who has begun to wait for it asks himself after this time: some round trips,
/// so that it is rare where the network answers at all.
const AHEAD_PATIENCE: Duration = Duration::from_millis(500);

type Plain = Result<Bytes, ChunkError>;

/// A read under way; others wait for it rather than read the same.
struct Flight {
    /// Nobody waited when it began.
    ahead: bool,
    done: Mutex<Option<Plain>>,
    ready: Condvar,
}

/// Flights that one thread leads: each ends with a result, whatever happens to the thread.
struct Led<'a> {
    chunks: &'a Chunks,
    flights: Vec<(ChunkRow, Arc<Flight>)>,
}

impl Chunks {
    pub(crate) fn new(blocks: Arc<BlockReader>, cache_bytes_max: usize, deadline: Duration) -> Self {
        let cache = Cache { chunks: LruCache::unbounded(), bytes: 0, bytes_max: cache_bytes_max };
        Self { blocks, deadline, cache: Mutex::new(cache), flights: Mutex::new(HashMap::new()) }
    }

    /// Reads a chunk for a seal: no cache is filled, and it may take longer.
    pub(crate) fn read_for_seal(&self, row: &ChunkRow, deadline: Duration) -> Result<Bytes, ChunkError> {
        if let Some(plain) = self.cache.lock().chunks.get(&row.digest) {
            return Ok(plain.clone());
        }
        Ok(self.open(row, self.blocks.want(Priority::Bulk, deadline))?)
    }

    fn open(&self, row: &ChunkRow, want: Want) -> Result<Bytes, DriveError> {
        let block = self.blocks.read(&cid_from_digest(CODEC_RAW, &row.digest), want)?;
        opened(row, block)
    }

    fn cached(&self, row: &ChunkRow) -> Option<Bytes> {
        let plain = self.cache.lock().chunks.get(&row.digest).cloned()?;
        // Equal blocks have equal plaintext; a row that lies about the length does not get past `opened`.
        (plain.len() == row.plain_len as usize).then_some(plain)
    }

    /// The flight that brings a chunk; `true`: a new one, which the caller leads.
    fn board(&self, row: &ChunkRow, ahead: bool) -> (Arc<Flight>, bool) {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&row.digest) {
            return (flight.clone(), false);
        }
        let flight = Arc::new(Flight { ahead, done: Mutex::new(None), ready: Condvar::new() });
        flights.insert(row.digest, flight.clone());
        (flight, true)
    }

    /// Reads what these flights are to bring; all of them end.
    fn fly(&self, flights: Vec<(ChunkRow, Arc<Flight>)>, priority: Priority) {
        let mut led = Led { chunks: self, flights };
        let want = self.blocks.want(priority, self.deadline);
        let cids: Vec<Cid> =
            led.flights.iter().map(|(row, _)| cid_from_digest(CODEC_RAW, &row.digest)).collect();
        let blocks = self.blocks.read_all(&cids, want);
        for ((row, flight), block) in std::mem::take(&mut led.flights).into_iter().zip(blocks) {
            let plain = block.and_then(|block| opened(&row, block)).map_err(ChunkError::from);
            if let Ok(plain) = &plain {
                self.cache.lock().put(row.digest, plain.clone());
            }
            self.land(&row, &flight, plain);
        }
    }

    fn land(&self, row: &ChunkRow, flight: &Arc<Flight>, plain: Plain) {
        {
            let mut flights = self.flights.lock();
            // Who lost patience has put another one in its place.
            if flights.get(&row.digest).is_some_and(|found| Arc::ptr_eq(found, flight)) {
                flights.remove(&row.digest);
            }
        }
        *flight.done.lock() = Some(plain);
        flight.ready.notify_all();
    }

    /// What a flight of somebody else's brought. `None`: it was fetched ahead, and did not come (in time).
    fn join(&self, row: &ChunkRow, flight: &Arc<Flight>) -> Option<Plain> {
        let patience =
            // The leader is bounded by the same deadline; a second on top for its own arithmetic.
            if flight.ahead { AHEAD_PATIENCE } else { self.deadline + Duration::from_secs(1) };
        let mut done = flight.done.lock();
        while done.is_none() {
            if flight.ready.wait_for(&mut done, patience).timed_out() {
                break;
            }
        }
        match (done.clone(), flight.ahead) {
            (Some(Ok(plain)), _) => Some(Ok(plain)),
            (Some(Err(error)), false) => Some(Err(error)),
            (None, false) => Some(Err(ChunkError::Unreachable)),
            (_, true) => {
                drop(done);
                let mut flights = self.flights.lock();
                if flights.get(&row.digest).is_some_and(|found| Arc::ptr_eq(found, flight)) {
                    flights.remove(&row.digest);
                }
                None
            }
        }
    }
}

impl Drop for Led<'_> {
    fn drop(&mut self) {
        for (row, flight) in std::mem::take(&mut self.flights) {
            self.chunks.land(&row, &flight, Err(ChunkError::Unreachable));
        }
    }
}

/// The plain bytes of a chunk's block.
fn opened(row: &ChunkRow, block: Block) -> Result<Bytes, DriveError> {
    let codec = Codec::from_byte(row.codec)
        .ok_or_else(|| DriveError::damaged("chunk", format!("codec {} is unknown here", row.codec)))?;
    let plain = chunk::open(block, &ChunkKey::from_bytes(row.key), codec, row.plain_len)
        .map_err(|error| DriveError::damaged("chunk", error))?;
    Ok(plain.into())
}

impl ChunkSource for Chunks {
    fn read_chunk(&self, row: &ChunkRow) -> Plain {
        let mut plain = self.read_chunks(std::slice::from_ref(row));
        plain.pop().unwrap_or(Err(ChunkError::Unreachable))
    }

    fn read_chunks(&self, rows: &[ChunkRow]) -> Vec<Plain> {
        let mut found: Vec<Option<Plain>> = rows.iter().map(|row| self.cached(row).map(Ok)).collect();
        // Twice: what was fetched ahead and did not come is asked for again, by somebody who waits.
        for _ in 0..2 {
            let (mut led, mut joined) = (Vec::new(), Vec::new());
            for (n, row) in rows.iter().enumerate().filter(|(n, _)| matches!(found.get(*n), Some(None))) {
                let (flight, leads) = self.board(row, false);
                if leads {
                    led.push((row.clone(), flight.clone()));
                }
                joined.push((n, row, flight));
            }
            if !led.is_empty() {
                self.fly(led, Priority::Interactive);
            }
            for (n, row, flight) in joined {
                if let Some(place) = found.get_mut(n) {
                    *place = self.join(row, &flight);
                }
            }
            if found.iter().all(Option::is_some) {
                break;
            }
        }
        found.into_iter().map(|plain| plain.unwrap_or(Err(ChunkError::Unreachable))).collect()
    }

    fn fetch_ahead(&self, rows: &[ChunkRow]) {
        let missing = rows.iter().filter(|row| !self.is_local(row));
        let led: Vec<(ChunkRow, Arc<Flight>)> = missing
            .filter_map(|row| {
                let (flight, leads) = self.board(row, true);
                leads.then(|| (row.clone(), flight))
            })
            .collect();
        if !led.is_empty() {
            self.fly(led, Priority::Readahead);
        }
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
    fn put(&mut self, digest: [u8; 32], plain: Bytes) {
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
