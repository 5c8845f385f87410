//! The streaming hasher: payload bytes in, piece CID out, and on request the bytes of a tree cache.
//!
//! Memory is bounded whatever the length: one batch of payload (`BATCH_BYTES`), its leaves, one
//! pending node a level, and what `drain_cache` has not been asked for. Nothing is read twice.
//!
//! ```text
//! update -> batch of 256 quads -> 1024 leaves -> ... -> one node of level 10 -> carried upward
//! ```

use super::cache::{CacheBuilder, TreeLevel};
use super::cid::PieceCid;
use super::fr32::{QUAD_BYTES, QUAD_LEAVES, expand};
use super::node::{Node, hash_pair, zero_node};
use super::parallel;
use super::sha::hash_pairs;

/// Level of the one node that a full batch makes.
pub(super) const BATCH_LEVEL: u8 = 10;
const BATCH_LEAVES: usize = 1 << BATCH_LEVEL;
/// Payload of a full batch: 32,512 bytes.
pub(super) const BATCH_BYTES: usize = BATCH_LEAVES / QUAD_LEAVES * QUAD_BYTES;

/// Computes a piece CID while bytes pass by.
pub struct CommpHasher {
    /// Payload of a batch that is not full yet.
    pub(super) pending: Vec<u8>,
    pub(super) payload_len: u64,
    /// `carry[n]`: a complete node of level `BATCH_LEVEL + n` that waits for its right sibling.
    pub(super) carry: Vec<Option<Node>>,
    scratch: Scratch,
    pub(super) cache: Option<CacheBuilder>,
}

impl Default for CommpHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl CommpHasher {
    /// A hasher that keeps no tree.
    #[must_use]
    pub fn new() -> Self {
        Self {
            pending: Vec::with_capacity(BATCH_BYTES),
            payload_len: 0,
            carry: Vec::new(),
            scratch: Scratch::new(),
            cache: None,
        }
    }

    /// A hasher that also makes a tree cache whose lowest stored level is `level`.
    #[must_use]
    pub fn with_cache(level: TreeLevel) -> Self {
        Self { cache: Some(CacheBuilder::new(level)), ..Self::new() }
    }

    /// Payload bytes so far.
    #[must_use]
    pub fn payload_len(&self) -> u64 {
        self.payload_len
    }

    /// Takes the next payload bytes, of any number.
    pub fn update(&mut self, bytes: &[u8]) {
        let rest = self.fill_pending(bytes);
        let (batches, rest) = rest.as_chunks::<BATCH_BYTES>();
        for batch in batches {
            self.take_batch(batch);
        }
        self.pending.extend_from_slice(rest);
    }

    /// As `update`, with the hashing spread over `threads`; worth it from about a MiB a call.
    pub fn update_parallel(&mut self, bytes: &[u8], threads: usize) {
        let rest = self.fill_pending(bytes);
        let (batches, rest) = rest.as_chunks::<BATCH_BYTES>();
        let kept = self.kept_level();
        for part in parallel::reduce(batches, threads, kept) {
            // Nodes of the kept level go first: the cache stores levels in order of position only.
            if let (Some(cache), Some(level)) = (&mut self.cache, kept) {
                cache.record(level, &part.kept);
            }
            for root in part.roots {
                self.carry_up(root);
            }
        }
        self.pending.extend_from_slice(rest);
    }

    /// Bytes of the cache file that are ready, always to be appended; keeps memory small on long
    /// pieces. Empty without a cache.
    #[must_use]
    pub fn drain_cache(&mut self) -> Vec<u8> {
        self.cache.as_mut().map(CacheBuilder::drain).unwrap_or_default()
    }

    /// The name of what was hashed.
    #[must_use]
    pub fn finish(self) -> PieceCid {
        self.finish_with_cache().0
    }

    /// The name, and the last bytes of the cache file (empty without a cache).
    #[must_use]
    pub fn finish_with_cache(mut self) -> (PieceCid, Vec<u8>) {
        let height = PieceCid::height_of(self.payload_len);
        let root = self.root(height);
        let piece = PieceCid::hashed(self.payload_len, root);
        (piece, self.cache.take().map(|cache| cache.finish(&piece)).unwrap_or_default())
    }

    /// Completes the pending batch, or starts one; returns what begins at a batch's start. Where the
    /// bytes do not complete it, all of them are taken and nothing is returned.
    fn fill_pending<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        self.payload_len += bytes.len() as u64;
        if self.pending.is_empty() {
            return bytes;
        }
        let missing = BATCH_BYTES - self.pending.len();
        let (first, rest) = bytes.split_at(missing.min(bytes.len()));
        self.pending.extend_from_slice(first);
        if self.pending.len() == BATCH_BYTES {
            let batch = std::mem::take(&mut self.pending);
            self.take_batch(&batch);
            self.pending = batch;
            self.pending.clear();
        }
        rest
    }

    fn take_batch(&mut self, batch: &[u8]) {
        let kept = self.kept_level();
        let cache = &mut self.cache;
        let root = self.scratch.reduce(batch, BATCH_LEVEL, |level, nodes| {
            if let Some(cache) = cache.as_mut().filter(|_| kept == Some(level)) {
                cache.record(level, nodes);
            }
        });
        self.carry_up(root);
    }

    /// The stored level that lies inside a batch, if one does. At most one can: stored levels are
    /// `CACHE_STRIDE` apart and the lowest allowed one plus the stride is above a batch.
    fn kept_level(&self) -> Option<u8> {
        self.cache.as_ref().map(CacheBuilder::lowest).filter(|level| *level <= BATCH_LEVEL)
    }

    /// Adds a complete node of `BATCH_LEVEL`, like a one in a binary counter.
    fn carry_up(&mut self, node: Node) {
        let mut node = node;
        for level in BATCH_LEVEL.. {
            let slot = usize::from(level - BATCH_LEVEL);
            if slot == self.carry.len() {
                self.carry.push(None);
            }
            let Some(left) = self.carry[slot].take() else {
                self.carry[slot] = Some(node);
                return;
            };
            node = hash_pair(&left, &node);
            self.record(level + 1, &node);
        }
    }

    fn record(&mut self, level: u8, node: &Node) {
        // A batch's own levels are recorded as it is reduced.
        if let Some(cache) = self.cache.as_mut().filter(|_| level > BATCH_LEVEL) {
            cache.record(level, std::slice::from_ref(node));
        }
    }

    /// Completes every level with virtual zeros, from the last short batch to the root.
    fn root(&mut self, height: u8) -> Node {
        let mut last = self.last_batch(height);
        for level in BATCH_LEVEL..height {
            let waiting = self.carry.get(usize::from(level - BATCH_LEVEL)).copied().flatten();
            last = match (waiting, last) {
                (Some(left), Some(right)) => Some(hash_pair(&left, &right)),
                (Some(only), None) | (None, Some(only)) => Some(hash_pair(&only, &zero_node(level))),
                (None, None) => None,
            };
            if let Some(node) = last {
                self.record(level + 1, &node);
            }
        }
        let full = || self.carry.get(usize::from(height.checked_sub(BATCH_LEVEL)?)).copied().flatten();
        last.or_else(full).unwrap_or_else(|| zero_node(height))
    }

    fn last_batch(&mut self, height: u8) -> Option<Node> {
        if self.pending.is_empty() {
            return None;
        }
        let cache = &mut self.cache;
        Some(self.scratch.reduce(&self.pending, height.min(BATCH_LEVEL), |level, nodes| {
            if let Some(cache) = cache {
                cache.record(level, nodes);
            }
        }))
    }
}

/// Quads that are expanded and hashed in one go: so few that the processor works on the next ones' shifts
/// while the hashes of these still run, and their leaves never leave the first-level cache.
const FUSED_QUADS: usize = 4;

/// Two buffers that the levels of one batch pass between.
pub(super) struct Scratch {
    even: Vec<Node>,
    odd: Vec<Node>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self { even: vec![[0; 32]; BATCH_LEAVES], odd: vec![[0; 32]; BATCH_LEAVES] }
    }

    /// The node of `top` above a payload of at most one batch; `seen` gets each level's nodes above
    /// the leaves. `top` is high enough for the payload and at most `BATCH_LEVEL`.
    pub(super) fn reduce(&mut self, payload: &[u8], top: u8, mut seen: impl FnMut(u8, &[Node])) -> Node {
        debug_assert!(payload.len() <= BATCH_BYTES && top <= BATCH_LEVEL);
        let mut leaves = [[0; 32]; FUSED_QUADS * QUAD_LEAVES];
        let fused = payload.chunks(FUSED_QUADS * QUAD_BYTES);
        for (quads, parents) in fused.zip(self.even.chunks_mut(FUSED_QUADS * QUAD_LEAVES / 2)) {
            let count = quads.len().div_ceil(QUAD_BYTES) * QUAD_LEAVES;
            expand(quads, &mut leaves);
            hash_pairs(&leaves[..count], &mut parents[..count / 2]);
        }
        let mut count = payload.len().div_ceil(QUAD_BYTES) * QUAD_LEAVES / 2;
        let (mut from, mut to) = (&mut self.even, &mut self.odd);
        for level in 1..top {
            if !count.is_multiple_of(2) {
                from[count] = zero_node(level);
                count += 1;
            }
            count /= 2;
            hash_pairs(&from[..count * 2], &mut to[..count]);
            seen(level + 1, &to[..count]);
            std::mem::swap(&mut from, &mut to);
        }
        debug_assert_eq!(count, 1);
        from[0]
    }
}

#[cfg(test)]
mod tests;
