//! The words in which the daemon and a drive talk: options, commits, pieces, durability, errors.
//!
//! Owns: plain types without behaviour (their `Display` and parsing apart). Promises: nothing here holds a lock,
//! a file or a key that outlives the value. The only secrets are the keys inside [`CommitRef`] and [`PhysicalRef`], and `Debug` does not
//! print them.

use std::fmt;
use std::time::Duration;

pub use holdfast_content::block::PieceId;
use holdfast_content::commit::CommitRef;
use holdfast_content::tree::PhysicalRef;
use holdfast_store::{Lsn, StoreOptions};

use super::edges::Edges;
#[cfg(doc)]
use crate::vfs::VfsOptions;

/// How a drive behaves; the defaults are those of the design.
#[derive(Clone)]
pub struct DriveOptions {
    /// A piece is finished when the next block would carry it past this.
    pub piece_bytes_max: u64,
    /// Decoded chunks kept in memory.
    pub chunk_cache_bytes_max: usize,
    /// Blocks of tree nodes that came over the network, kept in memory.
    pub node_cache_bytes_max: usize,
    /// Decoded tree nodes kept in memory, for each of the two trees.
    pub tree_cache_bytes_max: usize,
    /// How long one read may wait for the network (a FUSE request is answered within 10 s whatever happens).
    pub fetch_deadline: Duration,
    /// Threads that fetch what readers will ask for next; none: nothing is fetched ahead.
    pub readahead_threads: usize,
    /// Threads that compress, encrypt and hash while a seal runs, at idle priority.
    pub seal_threads: usize,
    /// What the home folder may hold (log and local pieces); statfs and ENOSPC go by it. `None`: the disk's size.
    pub quota_bytes: Option<u64>,
    /// Plain bytes that a seal takes from the log before it lets go of what it has sealed. Bounds what a snapshot pins.
    pub seal_round_bytes_max: u64,
    /// Such rounds before a seal makes its commit.
    pub seal_rounds_max: usize,
    /// Left free on the home's disk whatever happens, but no more than a sixteenth of that disk.
    pub disk_free_bytes_min: u64,
    /// Providers that may be lost without losing data: M. A piece may be evicted only with more than M holders.
    pub survive_losses: u8,
    /// Pieces that are mostly dead are emptied into new ones only where this many bytes come free by it.
    pub compact_gain_bytes_min: u64,
    /// No name of this device reaches a provider; it is written into (encrypted) commits only.
    pub device: [u8; 16],
    /// The writer's term that commits are marked with.
    pub term: u64,
    /// Settings of the log and the index.
    pub store: StoreOptions,
    /// The hook of a test.
    pub edges: Edges,
}

impl Default for DriveOptions {
    fn default() -> Self {
        Self {
            piece_bytes_max: 64 << 20,
            chunk_cache_bytes_max: 32 << 20,
            node_cache_bytes_max: 16 << 20,
            tree_cache_bytes_max: 16 << 20,
            // Below the 10 s in which a FUSE request is answered, with room for arithmetic and scheduling.
            fetch_deadline: Duration::from_secs(8),
            // With 1 MiB each, 8 MiB are under way: 200 MB/s over a round trip of 40 ms.
            readahead_threads: 8,
            seal_threads: 2,
            quota_bytes: None,
            seal_round_bytes_max: 2 << 30,
            // A drive that is written faster than it is sealed gets its commit.
            seal_rounds_max: 64,
            disk_free_bytes_min: 256 << 20,
            survive_losses: 2,
            // Below, deals and a commit cost more than the room is worth.
            compact_gain_bytes_min: 1 << 20,
            device: [0; 16],
            term: 0,
            store: StoreOptions::default(),
            edges: Edges::default(),
        }
    }
}

impl DriveOptions {
    /// No quota is smaller: below, one segment of the log and one piece would be most of it.
    pub const QUOTA_BYTES_MIN: u64 = 64 << 20;

    /// No process gets by with less memory.
    pub const MEMORY_BYTES_MIN: u64 = 192 << 20;
    /// What a process is meant to keep within where nobody says otherwise.
    pub const MEMORY_BYTES_DEFAULT: u64 = 512 << 20;

    /// The same drive in a process that is to keep within `bytes` of resident memory. What the caches and buffers count is about two thirds of it, together with
    /// [`VfsOptions::with_memory`]; the rest is for what is not counted: the program, threads, messages, a seal's lists, and what the allocator loses.
    pub fn with_memory(mut self, bytes: u64) -> Self {
        let bytes = usize::try_from(bytes.max(Self::MEMORY_BYTES_MIN)).unwrap_or(usize::MAX);
        self.chunk_cache_bytes_max = bytes / 16;
        self.node_cache_bytes_max = bytes / 32;
        self.tree_cache_bytes_max = bytes / 32;
        self.store = self.store.with_memory(bytes / 2);
        self
    }

    /// The same drive in a home of at most `bytes`: pieces, segments and rounds small enough that filling, sealing and evicting go on
    /// side by side.
    pub fn with_quota(mut self, bytes: u64) -> Self {
        let bytes = bytes.max(Self::QUOTA_BYTES_MIN);
        let segment = (bytes / 32).next_power_of_two().clamp(2 << 20, 64 << 20);
        self.quota_bytes = Some(bytes);
        self.piece_bytes_max = self.piece_bytes_max.min((bytes / 16).max(4 << 20));
        self.seal_round_bytes_max = self.seal_round_bytes_max.min(bytes / 16);
        self.seal_rounds_max = 2;
        self.store.log_segment_bytes = segment;
        self.store.data_segment_bytes = segment;
        self.store.first_segment_bytes = self.store.first_segment_bytes.min(segment);
        self.store.recycled_segments_max = 1;
        self.store.ballast_bytes = self.store.ballast_bytes.min(bytes / 16);
        self.store.flush_log_bytes = self.store.flush_log_bytes.min(bytes / 8);
        self.store.unsynced_bytes_max = self.store.unsynced_bytes_max.min(bytes / 16);
        self.store.unsynced_bytes_push = self.store.unsynced_bytes_push.min(bytes / 32);
        self
    }
}

/// One commit: a cut of the whole drive at exactly one LSN, named by an encrypted block in a finished local piece.
#[derive(Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// Counts this drive's commits, from 1; a restored drive goes on from its restore point.
    pub sequence: u64,
    /// All changes up to and including this LSN are in the commit, none after it.
    pub cut: Lsn,
    /// Names the commit: UnixFS root, place of its encrypted body, and its key (for the encrypted head, never anywhere else).
    pub commit: CommitRef,
    /// Root of the location tree that knows every block of this commit. It lies in a finished piece as well.
    pub location_root: PhysicalRef,
    /// Pieces that were finished since the commit before, oldest first: what has to be placed before this commit may be published.
    pub new_pieces: Vec<PieceId>,
    /// Inodes whose data is not in the commit: it could not be sealed ([`Drive::unsealed_files`](super::Drive::unsealed_files)), or an earlier
    /// commit lacked it. They restore as an error. 0 stands for those that a commit counts and does not list.
    pub pending: Vec<u64>,
    /// Unix seconds.
    pub time: u64,
}

/// What an empty home needs to become the drive again: all of it stands in a verified head.
#[derive(Clone, PartialEq, Eq)]
pub struct RestorePoint {
    /// The commit.
    pub commit: CommitRef,
    /// The newest commit that lacks nothing, where the head names another one.
    pub complete: Option<CommitRef>,
    /// The location tree that the head names.
    pub location_root: PhysicalRef,
}

/// A piece as the drive knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceInfo {
    /// Its random name.
    pub id: PieceId,
    /// Bytes of the CAR file: what is placed.
    pub raw_len: u64,
    /// Its file is in the home folder.
    pub local: bool,
    /// The first commit that needs it; 0 while no commit does (a seal in progress, or a checkpoint).
    pub commit_sequence: u64,
    /// Unix seconds.
    pub created: u64,
    /// A placement checkpoint or something else that the daemon wrote: no commit refers to it.
    pub checkpoint: bool,
}

/// What is not in a commit yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DirtyState {
    /// How long ago the oldest uncommitted change was made, as far as this process saw it; `None`: nothing is dirty.
    pub oldest_change_age: Option<Duration>,
    /// How long ago the newest one was made: the time that the drive has been idle.
    pub newest_change_age: Option<Duration>,
    /// Payload bytes in the log that no chunk replaces yet.
    pub bytes: u64,
    /// Changed inodes; counting stops at [`DirtyState::INODES_COUNTED_MAX`].
    pub inodes: u64,
}

impl DirtyState {
    /// Beyond this many changed inodes nobody cares for the exact number.
    pub const INODES_COUNTED_MAX: u64 = 4_096;

    /// Is there anything that a seal would put into a commit?
    pub fn is_dirty(&self) -> bool {
        self.oldest_change_age.is_some()
    }
}

/// Room that the drive takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DriveUsage {
    /// Log and data segments on disk.
    pub log_bytes: u64,
    /// Payload bytes in them that are still referenced.
    pub staged_bytes: u64,
    /// Local piece files.
    pub piece_bytes_local: u64,
    /// Local pieces.
    pub pieces_local: u64,
    /// All pieces that the index knows, evicted ones included.
    pub piece_bytes_total: u64,
    /// See [`piece_bytes_total`](Self::piece_bytes_total).
    pub pieces_total: u64,
    /// What the log has not fsync'd yet.
    pub unsynced_bytes: u64,
    /// The home folder's limit.
    pub quota_bytes: Option<u64>,
}

/// How tight it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pressure {
    /// Under a quota: a writer was told to wait, and there is no room to speak of since.
    pub waiting: bool,
    /// What may be written at once.
    pub free_bytes: u64,
}

/// What the daemon knows of one piece's copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PieceDurability {
    /// Providers that count: signed receipt, then a ranged read and a fresh challenge answered.
    pub holders_counting: u8,
    /// When the last of them answered its audit (the oldest such time over the holders), unix seconds.
    pub proven_at: Option<u64>,
}

/// Answered by the daemon: what the network holds.
pub trait DurabilitySource: Send + Sync {
    /// The copies of a piece. Cheap (memory): it is asked once for each chunk of a file.
    fn piece(&self, piece: PieceId) -> PieceDurability;
    /// The newest commit that a published head names.
    fn published_sequence(&self) -> Option<u64>;
    /// Blocks that must stay though no kept commit may reach them: all of them, or nothing where they are not known, so that nothing
    /// may be judged.
    fn shared_blocks(&self) -> Option<Vec<[u8; 32]>>;
    /// Counts bytes that providers took: while it grows, room is being made.
    fn sent_bytes(&self) -> u64 {
        0
    }
}

/// The ladder; every byte stands on exactly one rung. Ordered: a directory's rung is the lowest below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On no rung: the commit that the drive was restored from lacks the file's data.
    Missing,
    /// In the local log.
    Staged,
    /// Encrypted blocks of a UnixFS DAG, named by a local commit.
    Sealed,
    /// In a finished piece.
    Packed,
    /// Restorable from the words alone, and survives the loss of this many providers.
    Placed(u8),
    /// Every holder answered its last audit, the oldest of them at `at` (unix seconds).
    Proven {
        /// As in `Placed`.
        survives: u8,
        /// Unix seconds.
        at: u64,
    },
}

impl fmt::Debug for CommitInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitInfo")
            .field("sequence", &self.sequence)
            .field("cut", &self.cut)
            .field("commit", &self.commit.at)
            .field("new_pieces", &self.new_pieces.len())
            .field("pending", &self.pending.len())
            .field("time", &self.time)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RestorePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestorePoint").field("commit", &self.commit.at).finish_non_exhaustive()
    }
}
