//! The streaming builder: payload bytes in, root and the bytes of the tree's file out.
//!
//! Memory is bounded: a batch of payload for each thread's run, at most seven waiting nodes a level, the
//! stored levels above the lowest (1/7 of the file), and what `drain` has not been asked for.

use holdfast_proofs::PieceCid;

use super::file::{FileBuilder, StoredLevel};
use super::{SLOT_HEIGHT, SlotCommitment, TreeError, TreeRoot, elements, zero_root};
use crate::field::{ARITY, Fr, hash8};

/// Level of the node that a batch makes: 512 leaves.
const BATCH_LEVEL: u8 = 3;
/// Payload of a batch: 16,256 bytes.
const BATCH_BYTES: usize = (1 << (3 * BATCH_LEVEL)) / 4 * 127;

/// Builds a slot's tree while its bytes pass by.
pub struct SlotTreeBuilder {
    payload_len: u64,
    /// Payload of a batch that is not full yet.
    pending: Vec<u8>,
    /// `waiting[l]`: fewer than eight nodes of level `l` whose siblings have not come yet.
    waiting: [Vec<Fr>; SLOT_HEIGHT as usize],
    root: Option<Fr>,
    file: FileBuilder,
}

/// The nodes of levels 1, 2, 3 over one batch.
type Reduced = [Vec<Fr>; BATCH_LEVEL as usize];

impl SlotTreeBuilder {
    /// A builder whose file stores the tree from `level` upward.
    #[must_use]
    pub fn new(level: StoredLevel) -> Self {
        Self {
            payload_len: 0,
            pending: Vec::with_capacity(BATCH_BYTES),
            waiting: Default::default(),
            root: None,
            file: FileBuilder::new(level),
        }
    }

    /// Takes the next payload bytes, of any number, hashing on `threads` threads; worth more than one
    /// from 32 KiB a call.
    pub fn update(&mut self, bytes: &[u8], threads: usize) {
        self.payload_len += bytes.len() as u64;
        let missing = (BATCH_BYTES - self.pending.len()) % BATCH_BYTES;
        let (first, rest) = bytes.split_at(missing.min(bytes.len()));
        self.pending.extend_from_slice(first);
        if self.pending.len() == BATCH_BYTES {
            let batch = std::mem::take(&mut self.pending);
            self.take(reduce(&batch));
        }
        let (batches, rest) = rest.as_chunks::<BATCH_BYTES>();
        for reduced in reduce_all(batches, threads) {
            self.take(reduced);
        }
        self.pending.extend_from_slice(rest);
    }

    /// Bytes of the tree's file that are ready, always to be appended.
    #[must_use]
    pub fn drain(&mut self) -> Vec<u8> {
        self.file.drain()
    }

    /// The commitment to `piece`, which whoever built the tree has computed from the same bytes, and
    /// the last bytes of the file.
    ///
    /// # Errors
    /// `OtherLength` where the piece has another length, `Length` where no tree has room for it.
    pub fn finish(mut self, piece: &PieceCid) -> Result<(SlotCommitment, Vec<u8>), TreeError> {
        let built = self.payload_len;
        if built != piece.payload_len() {
            return Err(TreeError::OtherLength { built, piece: piece.payload_len() });
        }
        // Refuses the empty and the too long before a root is asked for.
        SlotCommitment::new(*piece, TreeRoot(zero_root(SLOT_HEIGHT)))?;
        if !self.pending.is_empty() {
            let batch = std::mem::take(&mut self.pending);
            self.take(reduce(&batch));
        }
        for level in BATCH_LEVEL..SLOT_HEIGHT {
            if !self.waiting[usize::from(level)].is_empty() {
                let node = parent(&std::mem::take(&mut self.waiting[usize::from(level)]), level);
                self.carry(level + 1, node);
            }
        }
        let root = self.root.ok_or(TreeError::Length(built))?;
        let commitment = SlotCommitment::new(*piece, TreeRoot(root))?;
        Ok((commitment, self.file.finish(&commitment)))
    }

    fn take(&mut self, reduced: Reduced) {
        for (level, nodes) in (1..).zip(&reduced) {
            if level < BATCH_LEVEL {
                self.file.record(level, nodes);
            }
        }
        for node in reduced.last().into_iter().flatten() {
            self.carry(BATCH_LEVEL, *node);
        }
    }

    /// Adds a complete node, and its parent where it is the eighth.
    fn carry(&mut self, level: u8, node: Fr) {
        let (mut level, mut node) = (level, node);
        loop {
            self.file.record(level, &[node]);
            let Some(waiting) = self.waiting.get_mut(usize::from(level)) else {
                // Payload beyond the last leaf would make a second root; `finish` refuses its length.
                self.root = Some(node);
                return;
            };
            waiting.push(node);
            if waiting.len() < ARITY {
                return;
            }
            node = parent(&std::mem::take(waiting), level);
            level += 1;
        }
    }
}

/// The parent of at most eight nodes of `level`; zeros follow them.
fn parent(nodes: &[Fr], level: u8) -> Fr {
    let mut children = [zero_root(level); ARITY];
    for (child, node) in children.iter_mut().zip(nodes) {
        *child = *node;
    }
    hash8(&children)
}

/// Every node above at most one batch of payload, up to `BATCH_LEVEL`.
fn reduce(payload: &[u8]) -> Reduced {
    let mut below = elements(payload);
    // A short quad's last leaves may hold no bit: they are zeros, and so is the subtree over them.
    below.truncate(leaves(payload.len()));
    let mut level = 0;
    std::array::from_fn(|_| {
        let above: Vec<Fr> = below.chunks(ARITY).map(|nodes| parent(nodes, level)).collect();
        level += 1;
        below.clone_from(&above);
        above
    })
}

fn leaves(payload_len: usize) -> usize {
    usize::try_from(holdfast_proofs::commp::leaf_count(payload_len as u64)).unwrap_or(usize::MAX)
}

/// Every batch in its order, in runs on scoped threads.
fn reduce_all(batches: &[[u8; BATCH_BYTES]], threads: usize) -> Vec<Reduced> {
    let run = batches.len().div_ceil(threads.max(1)).max(1);
    let mut runs = batches.chunks(run);
    let Some(own) = runs.next() else { return Vec::new() };
    let all = |run: &[[u8; BATCH_BYTES]]| run.iter().map(|batch| reduce(batch)).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        let others: Vec<_> = runs.map(|run| scope.spawn(move || all(run))).collect();
        let mut out = all(own);
        for other in others {
            match other.join() {
                Ok(part) => out.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        out
    })
}
