//! What the file system needs from others, as traits, and the plain types that cross them.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_store::Lsn;

use crate::rows::{ChunkRow, Ino, Time};
use crate::snapshots::SnapshotSource;

/// Gives the plain bytes of sealed chunks: decoded cache, then local piece, then network.
pub trait ChunkSource: Send + Sync {
    /// The chunk's plain bytes, exactly `plain_len` of them.
    ///
    /// Bounded: answers or fails well within the 10 s that a request has.
    fn read_chunk(&self, chunk: &ChunkRow) -> Result<Bytes, ChunkError>;

    /// The same for several, which are waited for together: one result for each, in order.
    fn read_chunks(&self, chunks: &[ChunkRow]) -> Vec<Result<Bytes, ChunkError>> {
        chunks.iter().map(|chunk| self.read_chunk(chunk)).collect()
    }

    /// Fetches what is not here, for readers to come. Whoever asks for one of them meanwhile waits for this fetch at first.
    fn fetch_ahead(&self, _chunks: &[ChunkRow]) {}

    /// Whether `read_chunk` would answer from this machine, without waiting for the network.
    fn is_local(&self, chunk: &ChunkRow) -> bool;
}

/// Why a chunk's bytes did not come.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChunkError {
    /// No provider could be reached, or none answered in time. Asking again later may help.
    #[error("no provider answered in time")]
    Unreachable,
    /// The bytes that came do not open under the chunk's key or have another length.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The local disk or index failed.
    #[error("local read: {0}")]
    Local(String),
}

/// A source for drives that never sealed anything.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoChunks;

impl ChunkSource for NoChunks {
    fn read_chunk(&self, _chunk: &ChunkRow) -> Result<Bytes, ChunkError> {
        Err(ChunkError::Damaged("this drive has no sealed chunks".to_owned()))
    }

    fn is_local(&self, _chunk: &ChunkRow) -> bool {
        true
    }
}

/// Room on the drive, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What `df` calls the size.
    pub total: u64,
    /// What may still be written before ENOSPC.
    pub free: u64,
}

/// What a change that needs room is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// There is room.
    Free,
    /// Room is being made: whoever can, waits and asks again.
    Waits,
    /// Room would be made, but nothing moves any more: new changes are turned away, what was accepted before waits on.
    Stalled,
    /// There is none, and none is coming.
    None,
}

/// What the file system asks its owner while it runs.
pub trait Hooks: Send + Sync {
    /// The rung of a file (its lowest) or folder (the lowest below it), as `user.holdfast.durability` shows it.
    /// `None`: the attribute does not exist here.
    fn durability(&self, ino: Ino) -> Option<String>;

    /// The commits, to be shown as `.snapshots`. `None`: there are none here.
    fn snapshots(&self) -> Option<Arc<dyn SnapshotSource>> {
        None
    }

    /// What `df` shows; cheap (a few atomic loads).
    fn space(&self) -> Space;

    /// Whether [`Hooks::room`] may say that somebody has to wait.
    fn is_paced(&self) -> bool {
        false
    }

    /// Asked before each change that needs `bytes` more; as cheap.
    fn room(&self, bytes: u64) -> Room {
        if self.space().free < bytes.max(1) { Room::None } else { Room::Free }
    }
}

/// For a file system without a daemon around it: no durability attribute, a fixed amount of room.
#[derive(Debug, Clone, Copy)]
pub struct PlainHooks {
    pub space: Space,
}

impl Hooks for PlainHooks {
    fn durability(&self, _ino: Ino) -> Option<String> {
        None
    }

    fn space(&self) -> Space {
        self.space
    }
}

/// The time that goes into inodes. The one implementation on the system's clock is [`SystemTime`].
pub trait Now: Send + Sync {
    fn now(&self) -> Time;
}

/// The system's real-time clock, as of its last tick (some milliseconds at most).
///
/// The kernel's writeback cache sets times of written files by the same ticks. A finer clock here would make a file that
/// was only created seem newer than one that was written after it, and confuse make.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemTime;

impl Now for SystemTime {
    fn now(&self) -> Time {
        let read = nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME_COARSE);
        // The call fails only for clocks that do not exist.
        read.map_or_else(
            |_| Time::default(),
            |at| Time { secs: at.tv_sec(), nanos: u32::try_from(at.tv_nsec()).unwrap_or_default() },
        )
    }
}

/// What a seal made of one file, or of a part of one, to be installed by [`super::Vfs::install_sealed`].
#[derive(Debug, Clone)]
pub struct SealedFile {
    pub ino: Ino,
    /// The chunks show the file as of this LSN.
    pub cut: Lsn,
    /// New chunks; `None`: as of the cut the chunk is all hole (or past the end) and its row goes.
    pub chunks: Vec<(u64, Option<ChunkRow>)>,
    /// As of the cut no chunk row is left that reaches past this byte (those there were are among `chunks` as
    /// `None`), so zeros from here on need no extent any more.
    pub empty_from: Option<u64>,
    /// About how many rows its installation changes: bounds a record, and how long the file is locked.
    pub rows: usize,
}
