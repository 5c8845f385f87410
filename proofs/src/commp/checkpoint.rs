//! A hasher's state as bytes, so that a transfer that goes on tomorrow reads nothing again.
//!
//! ```text
//! 0     version 1 | suite 1 | "HFCK" | cache level or 0 | 0
//! 8     payload bytes so far u64 LE
//! 16    the bytes of the batch that is not full yet
//!       nodes that wait for a sibling, from the lowest level upward
//!       upper cache levels so far, from the lowest upward
//! end   SHA-256 of everything before
//! ```
//!
//! Every length follows from the first sixteen bytes. At most 33 KiB and, with a cache, 1/127 of it.
//!
//! Order: the payload and the cache bytes up to here must be durable before the checkpoint replaces the
//! last one. On resuming, both files are cut to `payload_len` and `cache_len`.

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::cache::{CacheBuilder, TreeLevel};
use super::cid::{HEIGHT_MAX, PieceCid};
use super::hasher::{BATCH_BYTES, BATCH_LEVEL, CommpHasher};
use super::node::Node;

const HEAD: [u8; 6] = [1, 1, b'H', b'F', b'C', b'K'];
const HEAD_LEN: usize = 16;
const CHECK_LEN: usize = 32;

/// Why a checkpoint is of no use; the remedy is to hash the payload from its start.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckpointError {
    #[error("not a hasher's checkpoint, or a damaged one")]
    Damaged,
    #[error("the checkpoint is of version {version}, suite {suite}: newer than this program")]
    Newer { version: u8, suite: u8 },
}

/// What `CommpHasher::checkpoint` gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// To be appended to the cache file first.
    pub cache: Vec<u8>,
    /// Bytes of the whole cache file after that: what it is cut to on resuming.
    pub cache_len: u64,
    /// What `CommpHasher::resume` takes.
    pub state: Vec<u8>,
}

/// Full batches in the payload so far; their binary digits say which levels have a waiting node.
fn batches(payload_len: u64) -> u64 {
    payload_len / BATCH_BYTES as u64
}

impl CommpHasher {
    /// The state after the bytes so far; drains the cache.
    #[must_use]
    pub fn checkpoint(&mut self) -> Checkpoint {
        let cache = self.drain_cache();
        let mut state = HEAD.to_vec();
        state.extend_from_slice(&[self.cache.as_ref().map_or(0, CacheBuilder::lowest), 0]);
        state.extend_from_slice(&self.payload_len.to_le_bytes());
        state.extend_from_slice(&self.pending);
        state.extend_from_slice(self.carry.iter().flatten().copied().collect::<Vec<Node>>().as_flattened());
        if let Some(builder) = &self.cache {
            state.extend_from_slice(&builder.upper_bytes());
        }
        let check = Sha256::digest(&state);
        state.extend_from_slice(&check);
        Checkpoint { cache, cache_len: self.cache_len(), state }
    }

    /// Bytes of the cache file that have been drained or are ready, given the bytes so far.
    fn cache_len(&self) -> u64 {
        self.cache.as_ref().map_or(0, |builder| builder.ready_len(batches(self.payload_len) << BATCH_LEVEL))
    }

    /// A hasher that goes on where `state` was taken; with it, where to cut the cache file.
    ///
    /// # Errors
    /// `Damaged`, `Newer`.
    pub fn resume(state: &[u8]) -> Result<(Self, u64), CheckpointError> {
        let damaged = CheckpointError::Damaged;
        if let [version, suite, b'H', b'F', b'C', b'K', ..] = *state
            && (version, suite) != (HEAD[0], HEAD[1])
        {
            return Err(CheckpointError::Newer { version, suite });
        }
        let body = state.len().checked_sub(CHECK_LEN).ok_or(damaged.clone())?;
        let (body, check) = state.split_at(body);
        if Sha256::digest(body)[..] != *check {
            return Err(damaged);
        }
        Self::resume_checked(body).ok_or(damaged)
    }

    fn resume_checked(body: &[u8]) -> Option<(Self, u64)> {
        let (head, mut rest) = body.split_first_chunk::<HEAD_LEN>()?;
        let (head, len) = head.split_last_chunk::<8>()?;
        let [level, 0] = *head.strip_prefix(&HEAD)? else { return None };
        let payload_len = u64::from_le_bytes(*len);
        // No hasher has seen more than the longest piece; the counters stay far from overflow.
        PieceCid::new(payload_len, [0; 32]).ok()?;
        let mut take = |len: usize| rest.split_off(..len);

        let mut hasher = Self::new();
        hasher.payload_len = payload_len;
        hasher.pending.extend_from_slice(take((payload_len % BATCH_BYTES as u64) as usize)?);
        let batches = batches(payload_len);
        for slot in 0..u64::BITS - batches.leading_zeros() {
            let waiting = batches >> slot & 1 == 1;
            let node = if waiting { Some(take(32)?.try_into().ok()?) } else { None };
            hasher.carry.push(node);
        }
        if level != 0 {
            let mut builder = CacheBuilder::new(TreeLevel::new(level)?);
            let leaves = batches << BATCH_LEVEL;
            for stored in CacheBuilder::upper_levels(level, HEIGHT_MAX) {
                let nodes = usize::try_from(leaves >> stored).ok()?;
                builder.resume_upper(stored, take(nodes.checked_mul(32)?)?);
            }
            // What the file has already, the frame included, is not made again.
            let _ = builder.drain();
            hasher.cache = Some(builder);
        }
        let cache_len = hasher.cache_len();
        rest.is_empty().then_some((hasher, cache_len))
    }
}

#[cfg(test)]
mod tests;
