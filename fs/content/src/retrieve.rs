//! The seam through which blocks come back from wherever pieces lie.
//!
//! fs asks for blocks by place; the daemon implements [`Retriever`] over sessions with providers; [`FakeRetriever`] is
//! the one in memory. [`conformance`] is what every implementation passes.

use crate::block::{Block, BlockAt, PieceId};
use bytes::Bytes;
use cid::Cid;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// How urgent a fetch is. A retriever serves higher ones first and never lets bulk work delay an interactive read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Priority {
    /// Repair, prefetch of whole drives, scrubbing.
    Bulk,
    /// Likely to be read soon.
    Readahead,
    /// A program waits.
    Interactive,
}

/// Why a block did not come.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FetchError {
    /// Nobody is known to hold the piece.
    #[error("no known provider holds the piece")]
    NotFound,
    /// Holders are known, none could be reached.
    #[error("no provider of the piece can be reached")]
    Unreachable,
    /// The deadline passed.
    #[error("the block did not arrive in time")]
    Timeout,
    /// Every holder that answered sent bytes that do not match.
    #[error("the providers' bytes do not match the block")]
    Corrupt,
}

impl FetchError {
    /// Whether asking again later may help.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Unreachable | Self::Timeout)
    }
}

/// Fetches blocks by their place in pieces.
pub trait Retriever: Send + Sync {
    /// One result for each want, in order. Returns within `deadline` (plus scheduling), whatever the network does.
    fn fetch(
        &self,
        wants: &[BlockAt],
        priority: Priority,
        deadline: Duration,
    ) -> Vec<Result<Block, FetchError>>;
}

/// Answers nothing: a drive without providers.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRetriever;

impl Retriever for NoRetriever {
    fn fetch(&self, wants: &[BlockAt], _: Priority, _: Duration) -> Vec<Result<Block, FetchError>> {
        wants.iter().map(|_| Err(FetchError::NotFound)).collect()
    }
}

/// Pieces in memory, with faults at will.
#[derive(Debug, Default)]
pub struct FakeRetriever {
    state: parking_lot::Mutex<FakeState>,
}

#[derive(Debug, Default)]
struct FakeState {
    pieces: HashMap<PieceId, Bytes>,
    unreachable: HashSet<PieceId>,
    corrupt: HashSet<Cid>,
    stalled: bool,
    bytes_served: u64,
}

impl FakeRetriever {
    /// No pieces yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds (or replaces) a piece's raw bytes.
    pub fn insert_piece(&self, id: PieceId, bytes: impl Into<Bytes>) {
        self.state.lock().pieces.insert(id, bytes.into());
    }

    /// Forgets a piece.
    pub fn remove_piece(&self, id: &PieceId) {
        self.state.lock().pieces.remove(id);
    }

    /// Makes a piece's holders unreachable, or reachable again.
    pub fn set_unreachable(&self, id: PieceId, unreachable: bool) {
        let mut state = self.state.lock();
        if unreachable {
            state.unreachable.insert(id)
        } else {
            state.unreachable.remove(&id)
        };
    }

    /// Answers this block with damaged bytes from now on.
    pub fn corrupt(&self, cid: Cid) {
        self.state.lock().corrupt.insert(cid);
    }

    /// Answers nothing in time, as a dead network does (without making the test wait).
    pub fn set_stalled(&self, stalled: bool) {
        self.state.lock().stalled = stalled;
    }

    /// How many bytes of blocks were served.
    pub fn bytes_served(&self) -> u64 {
        self.state.lock().bytes_served
    }
}

impl FakeState {
    fn fetch_one(&mut self, want: &BlockAt) -> Result<Block, FetchError> {
        if self.stalled {
            return Err(FetchError::Timeout);
        }
        let piece = self.pieces.get(&want.piece).ok_or(FetchError::NotFound)?;
        if self.unreachable.contains(&want.piece) {
            return Err(FetchError::Unreachable);
        }
        let start = usize::try_from(want.offset).map_err(|_| FetchError::Corrupt)?;
        let end = start.checked_add(want.len as usize).ok_or(FetchError::Corrupt)?;
        if end > piece.len() || self.corrupt.contains(&want.cid) {
            return Err(FetchError::Corrupt);
        }
        let block = Block::verify(want.cid, piece.slice(start..end)).map_err(|_| FetchError::Corrupt)?;
        self.bytes_served += u64::from(want.len);
        Ok(block)
    }
}

impl Retriever for FakeRetriever {
    fn fetch(&self, wants: &[BlockAt], _: Priority, _: Duration) -> Vec<Result<Block, FetchError>> {
        let mut state = self.state.lock();
        wants.iter().map(|want| state.fetch_one(want)).collect()
    }
}

/// What every [`Retriever`] does. `present` lie in its pieces; `absent_piece` is known to nobody.
///
/// Panics with a message on the first violation: for use in tests.
pub fn conformance(retriever: &dyn Retriever, present: &[BlockAt], absent_piece: PieceId) {
    let deadline = Duration::from_secs(10);
    assert!(!present.is_empty(), "the suite needs blocks that are there");
    assert!(retriever.fetch(&[], Priority::Bulk, deadline).is_empty(), "no wants, no results");

    for priority in [Priority::Bulk, Priority::Readahead, Priority::Interactive] {
        let got = retriever.fetch(present, priority, deadline);
        assert_eq!(got.len(), present.len(), "one result for each want");
        for (want, got) in present.iter().zip(got) {
            assert_eq!(got.map(|block| *block.cid()), Ok(want.cid), "in the order of the wants");
        }
    }

    let mut mixed: Vec<BlockAt> = present.to_vec();
    mixed.extend_from_slice(present);
    mixed.insert(1, BlockAt { piece: absent_piece, ..present[0] });
    let got = retriever.fetch(&mixed, Priority::Interactive, deadline);
    assert_eq!(got.len(), mixed.len(), "duplicates get a result each");
    for (at, got) in got.iter().enumerate() {
        assert_eq!(got.is_ok(), at != 1, "one failure does not spoil the others (want {at})");
    }
    assert_eq!(got.get(1), Some(&Err(FetchError::NotFound)));

    let wrong = BlockAt { offset: present[0].offset + 1, ..present[0] };
    let beyond = BlockAt { offset: u64::MAX - 3, ..present[0] };
    for bad in [wrong, beyond] {
        let got = retriever.fetch(&[bad], Priority::Interactive, deadline);
        assert!(matches!(got.as_slice(), [Err(_)]), "bytes that do not match are never a block");
    }
}
