//! Batches spread over scoped threads; nothing outlives the call.

use super::hasher::{BATCH_BYTES, BATCH_LEVEL, Scratch};
use super::node::Node;

/// What one thread made of its run of batches, in their order.
pub(super) struct Part {
    /// Nodes of the kept level, where one lies inside a batch.
    pub kept: Vec<Node>,
    /// One node of `BATCH_LEVEL` for each batch.
    pub roots: Vec<Node>,
}

/// Batches a thread must have to be worth starting: about 10 us against 300.
const BATCHES_MIN: usize = 8;

/// Reduces every batch; parts come back in the order of the payload.
pub(super) fn reduce(batches: &[[u8; BATCH_BYTES]], threads: usize, kept: Option<u8>) -> Vec<Part> {
    let run = batches.len().div_ceil(threads.max(1)).max(BATCHES_MIN);
    let mut runs = batches.chunks(run);
    let Some(own) = runs.next() else { return Vec::new() };
    std::thread::scope(|scope| {
        let others: Vec<_> = runs.map(|run| scope.spawn(move || part(run, kept))).collect();
        let mut parts = vec![part(own, kept)];
        for other in others {
            match other.join() {
                Ok(part) => parts.push(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        parts
    })
}

fn part(batches: &[[u8; BATCH_BYTES]], kept: Option<u8>) -> Part {
    let mut scratch = Scratch::new();
    let mut part = Part { kept: Vec::new(), roots: Vec::with_capacity(batches.len()) };
    for batch in batches {
        let root = scratch.reduce(batch, BATCH_LEVEL, |level, nodes| {
            if kept == Some(level) {
                part.kept.extend_from_slice(nodes);
            }
        });
        part.roots.push(root);
    }
    part
}
