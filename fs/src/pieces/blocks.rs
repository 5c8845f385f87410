//! Reading blocks: local piece, then the network.
//!
//! Owns: where a block lies and from where its bytes come. Promises: what is returned matches its CID; a piece that is evicted in the middle of a
//! read is no error. Refuses: to wait longer than the deadline it is given (the Retriever's promise).
//!
//!     digest ──► block row ──► piece local? ──► file          (an evicted piece: the same place, by the Retriever)
//!            └─► location tree of the newest commit ──► Retriever     (restored drives know no rows)

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use cid::Cid;
use holdfast_content::block::{Block, BlockAt, digest_of};
use holdfast_content::retrieve::{FetchError, Priority, Retriever};
use holdfast_store::{Clock, Reads, Store, Table};
use lru::LruCache;
use parking_lot::Mutex;

use super::folder::Folder;
use super::rows::{BlockRow, PieceRow};
use crate::drive::error::DriveError;

/// Blocks up to this size are taken for tree nodes.
const NODE_BLOCK_BYTES_MAX: u32 = 128 << 10;

/// Where blocks are that have no row here: the location tree.
pub(crate) trait Locator: Send + Sync {
    /// The block's place, if the tree knows it.
    fn locate(&self, cid: &Cid, want: Want) -> Result<Option<BlockAt>, DriveError>;
}

/// Who asks, and until when (on the drive's monotonic clock): one budget for all fetches of an operation, so that a deep tree
/// takes no longer than a flat one before it gives up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Want {
    pub(crate) priority: Priority,
    until: Duration,
}

/// Reads blocks by CID or by place.
pub(crate) struct BlockReader {
    store: Store,
    folder: Arc<Folder>,
    retriever: Arc<dyn Retriever>,
    clock: Arc<dyn Clock>,
    locator: ArcSwapOption<Arc<dyn Locator>>,
    /// Blocks that came over the network, by CID: tree nodes are read again and again.
    fetched: Mutex<SizedLru>,
}

impl BlockReader {
    pub(crate) fn new(
        store: Store,
        folder: Arc<Folder>,
        retriever: Arc<dyn Retriever>,
        clock: Arc<dyn Clock>,
        fetched_bytes_max: usize,
    ) -> Self {
        Self {
            store,
            folder,
            retriever,
            clock,
            locator: ArcSwapOption::empty(),
            fetched: Mutex::new(SizedLru {
                blocks: LruCache::unbounded(),
                bytes: 0,
                bytes_max: fetched_bytes_max,
            }),
        }
    }

    /// Begins an operation that may take this long.
    pub(crate) fn want(&self, priority: Priority, deadline: Duration) -> Want {
        Want { priority, until: self.clock.now().saturating_add(deadline) }
    }

    /// Sets (or replaces) the location tree that is asked last.
    pub(crate) fn set_locator(&self, locator: Arc<dyn Locator>) {
        self.locator.store(Some(Arc::new(locator)));
    }

    /// The block's place.
    pub(crate) fn locate(&self, cid: &Cid, want: Want) -> Result<Option<BlockAt>, DriveError> {
        let digest = digest_of(cid)?;
        if let Some(row) = self.store.get(Table::Block, &digest)? {
            let row = BlockRow::decode(&row)?;
            return Ok(Some(BlockAt { cid: *cid, piece: row.piece, offset: row.offset, len: row.len }));
        }
        match self.locator.load().as_deref() {
            Some(locator) => locator.locate(cid, want),
            None => Ok(None),
        }
    }

    /// A block by its CID.
    pub(crate) fn read(&self, cid: &Cid, want: Want) -> Result<Block, DriveError> {
        let mut blocks = self.read_all(std::slice::from_ref(cid), want);
        blocks.pop().unwrap_or_else(|| Err(FetchError::NotFound.into()))
    }

    /// Several blocks by their CIDs, one result for each, in order; those that are not here are fetched together.
    pub(crate) fn read_all(&self, cids: &[Cid], want: Want) -> Vec<Result<Block, DriveError>> {
        let mut out: Vec<Result<Block, DriveError>> = Vec::with_capacity(cids.len());
        let (mut far, mut places) = (Vec::new(), Vec::new());
        for (n, cid) in cids.iter().enumerate() {
            match self.here(cid, want) {
                Ok(Ok(block)) => out.push(Ok(block)),
                Ok(Err(at)) => {
                    out.push(Err(FetchError::NotFound.into()));
                    far.push(at);
                    places.push(n);
                }
                Err(error) => out.push(Err(error)),
            }
        }
        for (n, block) in places.into_iter().zip(self.fetch(&far, want)) {
            if let Some(place) = out.get_mut(n) {
                *place = block;
            }
        }
        out
    }

    /// A block that is on this machine, or where else it is.
    fn here(&self, cid: &Cid, want: Want) -> Result<Result<Block, BlockAt>, DriveError> {
        if let Some(block) = self.fetched.lock().get(cid) {
            return Ok(Ok(block));
        }
        let at = self.locate(cid, want)?.ok_or_else(|| DriveError::NoPlace(Box::new(*cid)))?;
        Ok(self.near(&at).ok_or(at))
    }

    /// A block of a place, where its piece is here and right.
    fn near(&self, at: &BlockAt) -> Option<Block> {
        match self.read_local(at) {
            Ok(block) => block,
            // What the disk spoiled the network may still have.
            Err(error) => {
                tracing::error!(%error, cid = %at.cid, "a local block is unreadable");
                None
            }
        }
    }

    fn fetch(&self, wants: &[BlockAt], want: Want) -> Vec<Result<Block, DriveError>> {
        let left = want.until.saturating_sub(self.clock.now());
        if wants.is_empty() || left.is_zero() {
            return wants.iter().map(|_| Err(FetchError::Timeout.into())).collect();
        }
        let mut results = self.retriever.fetch(wants, want.priority, left);
        results.resize(wants.len(), Err(FetchError::NotFound));
        let mut blocks = Vec::with_capacity(wants.len());
        for (at, result) in wants.iter().zip(results) {
            if let Ok(block) = &result {
                if *block.cid() != at.cid {
                    blocks.push(Err(FetchError::Corrupt.into()));
                    continue;
                }
                // Chunks are kept decoded, by whoever asked; here only nodes are.
                if block.len() <= NODE_BLOCK_BYTES_MAX {
                    self.fetched.lock().put(block.clone());
                }
            }
            blocks.push(result.map_err(DriveError::from));
        }
        blocks
    }

    /// A block by its place.
    pub(crate) fn read_at(&self, at: &BlockAt, want: Want) -> Result<Block, DriveError> {
        if let Some(block) = self.fetched.lock().get(&at.cid) {
            return Ok(block);
        }
        if let Some(block) = self.near(at) {
            return Ok(block);
        }
        self.fetch(std::slice::from_ref(at), want).pop().unwrap_or_else(|| Err(FetchError::NotFound.into()))
    }

    /// Fetches several blocks ahead; what does not come is no error.
    pub(crate) fn prefetch(&self, wants: &[BlockAt], want: Want) {
        let missing: Vec<BlockAt> = {
            let mut fetched = self.fetched.lock();
            wants.iter().filter(|at| fetched.get(&at.cid).is_none()).copied().collect()
        };
        let missing: Vec<BlockAt> = missing.into_iter().filter(|at| !self.is_local(at)).collect();
        let left = want.until.saturating_sub(self.clock.now());
        if missing.is_empty() || left.is_zero() {
            return;
        }
        for block in self.retriever.fetch(&missing, Priority::Readahead, left).into_iter().flatten() {
            self.fetched.lock().put(block);
        }
    }

    /// May there be blocks without a row here?
    pub(crate) fn has_locator(&self) -> bool {
        self.locator.load().is_some()
    }

    /// Is it here already?
    pub(crate) fn is_fetched(&self, cid: &Cid) -> bool {
        self.fetched.lock().get(cid).is_some()
    }

    /// The place of a chunk's block as the local rows have it: never asks the network.
    pub(crate) fn local_row(&self, digest: &[u8; 32]) -> Option<BlockAt> {
        let row = self.store.get(Table::Block, digest).ok()??;
        Some(BlockRow::decode(&row).ok()?.at(digest))
    }

    /// Does the home folder hold the piece?
    pub(crate) fn is_local(&self, at: &BlockAt) -> bool {
        matches!(self.piece(at), Ok(Some(row)) if row.local)
    }

    /// May new rows refer to it? A piece that is elsewhere was evicted, and so is kept by others; of one that is here the
    /// block is read, since the disk may have lost it and what is about to refer to it may be all that still has the data.
    pub(crate) fn is_sound(&self, at: &BlockAt) -> bool {
        match self.piece(at) {
            Ok(Some(row)) if !row.local => true,
            Ok(Some(_)) => match self.read_local(at) {
                Ok(block) => block.is_some(),
                Err(error) => {
                    tracing::error!(%error, cid = %at.cid, "a local block is unreadable, and is written anew");
                    false
                }
            },
            Ok(None) | Err(_) => false,
        }
    }

    fn piece(&self, at: &BlockAt) -> Result<Option<PieceRow>, DriveError> {
        match self.store.get(Table::Piece, &at.piece)? {
            Some(row) => Ok(Some(PieceRow::decode(&row)?)),
            None => Ok(None),
        }
    }

    /// The block from its local piece; `None` if the piece is not here.
    pub(crate) fn read_local(&self, at: &BlockAt) -> Result<Option<Block>, DriveError> {
        if !self.piece(at)?.is_some_and(|row| row.local) {
            return Ok(None);
        }
        let mut bytes = vec![0; at.len as usize];
        match self.folder.read(at.piece, at.offset, &mut bytes) {
            Ok(()) => Ok(Some(Block::verify(at.cid, bytes)?)),
            Err(DriveError::NotLocal(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

struct SizedLru {
    blocks: LruCache<Cid, Block>,
    bytes: usize,
    bytes_max: usize,
}

impl SizedLru {
    fn get(&mut self, cid: &Cid) -> Option<Block> {
        self.blocks.get(cid).cloned()
    }

    fn put(&mut self, block: Block) {
        self.bytes += block.len() as usize;
        if let Some((_, old)) = self.blocks.push(*block.cid(), block) {
            self.bytes -= old.len() as usize;
        }
        while self.bytes > self.bytes_max {
            let Some((_, old)) = self.blocks.pop_lru() else { break };
            self.bytes -= old.len() as usize;
        }
    }
}
