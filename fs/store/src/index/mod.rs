//! The index: an ordered map on disk that follows the log and may be behind it.
//!
//! Takes sealed values under opaque keys. Each batch carries the state row (`STATE_KEY`), so that after any crash the index
//! holds a prefix of the batches and says which.

pub(crate) mod ahead;
pub(crate) mod aside;
mod memory;
mod rocks;

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
pub use memory::MemoryIndex;
pub(crate) use rocks::RocksIndex;

use crate::Direction;
use crate::error::Result;

/// The state row: above every table's number, so no scan of a table meets it.
pub(crate) const STATE_KEY: [u8; 1] = [0xff];

/// Called for each row of a scan; false ends it.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> bool;

/// One change of a batch, under a key that somebody else holds.
pub(crate) enum Write<'a> {
    Put(&'a [u8], Vec<u8>),
    Delete(&'a [u8]),
    /// All keys from the first one on, below the second. What the batch puts after it stands.
    DeleteRange(&'a [u8], &'a [u8]),
}

/// The changes of a batch, in their order, sealed as they are taken: a batch never stands in memory twice.
pub(crate) type Batch<'a> = &'a mut dyn Iterator<Item = Result<Write<'a>>>;

/// Opens a value where it lies: in a page of the index's own memory.
pub(crate) type Open<'a> = &'a dyn Fn(&[u8]) -> Result<Bytes>;

/// Reads, of the index as it is or as it was.
pub(crate) trait IndexRead: Send + Sync {
    fn get(&self, key: &[u8], open: Open<'_>) -> Result<Option<Bytes>>;
    fn scan(
        &self,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<()>;

    /// `start <= key < end`, forward, and not to the end of a run of more than about `gone_max` rows that were deleted there: those stand in the index until
    /// it is compacted, and who only guesses that there may be something must not pass them by the hundred thousand. False: it gave up.
    fn scan_unless_gone(&self, start: &[u8], end: &[u8], _gone_max: u64, visit: Visit<'_>) -> Result<bool> {
        self.scan(Bound::Included(start), Bound::Excluded(end), Direction::Forward, visit)?;
        Ok(true)
    }
}

pub(crate) trait Index: Send + Sync {
    fn get(&self, key: &[u8], open: Open<'_>) -> Result<Option<Bytes>>;
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>>;
    /// The index as it is now, for ever. Cheap.
    fn snapshot(&self) -> Arc<dyn IndexRead>;
    /// Applies all of a batch, of about `bytes`, or nothing. Batches become durable in their order.
    fn write(&self, batch: Batch<'_>, bytes: usize) -> Result<()>;
    /// Makes all batches durable.
    fn flush(&self) -> Result<()>;
    fn disk_bytes(&self) -> u64;
}

#[cfg(test)]
mod tests;
