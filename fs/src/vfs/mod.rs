//! POSIX over rows: what ext4 does for a program, unmounted and offline.
//!
//! Owns: every rule of the file system (`../../SEMANTICS.md`), inodes in memory, their locks. Promises: each call that
//! changes something is one record of the log, written when the call returns; what `fsync` returned from is durable.
//! Refuses: to check permissions. The kernel does that under `default_permissions`, which the edge always asks for; what
//! follows from who calls (setgid folders, clearing of setuid bits) is done here.
//!
//!     call ──► nodes (cache, loaded from rows) ──► locks in ascending order of inode ──► one RowTxn ──► memory
//!
//! Lock order: the rename lock, then inode locks ascending ([`node::lock_many`]), then nothing. No inode is loaded
//! while a lock is held. Network reads of chunks happen with no lock held.

pub(crate) mod acl;
mod ahead;
mod attr;
mod copy;
mod create;
mod data;
mod dir;
mod error;
mod extents;
mod names;
mod node;
mod policy;
mod readahead;
mod remove;
mod rename;
mod sealing;
pub mod seams;
mod space;
#[cfg(test)]
mod tests;
mod xattr;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::rows::{Ino, InodeRow, Kind, ROOT_INO, Rows, Time};
use crate::snapshots::SnapshotSource;

pub use attr::{Attr, SetAttr, TimeSet};
pub use create::NewNode;
pub use data::{Atime, WriteMode};
pub use dir::DirEntry;
pub use error::FsError;
pub use rename::RenameMode;
pub use seams::{
    ChunkError, ChunkSource, Hooks, NoChunks, Now, PlainHooks, Room, SealedFile, Space, SystemTime,
};
pub use space::{AllocateMode, SeekTo};
pub(crate) use xattr::DURABILITY_XATTR;
pub use xattr::SetMode;

use node::{Node, NodeCache, State};

/// Largest file: that of ext4 with 4 KiB blocks (2^32 - 1 of them).
pub const FILE_BYTES_MAX: u64 = ((1 << 32) - 1) << 12;
/// Most names of one file, as on ext4.
pub const LINKS_MAX: u32 = 65_000;
/// Inode numbers reserved at once.
const INO_BLOCK: u64 = 1024;
/// Rounds of housekeeping for which inodes outlive their names after somebody came too late to open one.
const CAREFUL_ROUNDS: u32 = 2;

/// Bounds and defaults of a [`Vfs`].
#[derive(Debug, Clone)]
pub struct VfsOptions {
    /// Inodes kept in memory (some 700 bytes each).
    pub nodes_max: usize,
    /// Extents and directory slots kept in memory (about 100 bytes each).
    pub details_max: usize,
    /// Directories up to this many entries are read whole once many names were looked for in them.
    pub dir_load_entries_max: u64,
    /// Directories are kept whole in memory up to this many entries.
    pub dir_keep_entries_max: usize,
    /// log2 of the chunk size of new files.
    pub chunk_log2: u8,
    /// Owner and group of the root when the drive is new.
    pub root_owner: (u32, u32),
    /// Refuse every change.
    pub read_only: bool,
    /// Never note when something was read.
    pub no_atime: bool,
    /// Never note when a directory was read.
    pub no_dir_atime: bool,
}

impl Default for VfsOptions {
    fn default() -> Self {
        Self {
            nodes_max: 65_536,
            details_max: 262_144,
            dir_load_entries_max: 4_096,
            dir_keep_entries_max: 65_536,
            chunk_log2: crate::rows::inode::CHUNK_LOG2_DEFAULT,
            root_owner: (0, 0),
            read_only: false,
            no_atime: false,
            no_dir_atime: false,
        }
    }
}

impl VfsOptions {
    /// The same for a process that is to keep within `bytes` of resident memory: an eighth of it for inodes and what is known of them.
    pub fn with_memory(mut self, bytes: u64) -> Self {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.nodes_max = bytes / 8192;
        self.details_max = bytes / 2048;
        self
    }
}

/// Changes that are durable when the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synced {
    /// Those that `fsync` asks for.
    Asked,
    /// Those of names, too (`dirsync`).
    Names,
    /// All (`sync`).
    All,
}

/// On whose behalf a call is made.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    pub uid: u32,
    /// One group that it is in; where setgid is at stake, the file's, if it is in that.
    pub gid: u32,
    /// Has CAP_FSETID and CAP_SYS_ADMIN, as far as the edge can tell: setuid bits survive its writes, `trusted.*` is shown.
    pub privileged: bool,
}

impl Caller {
    pub fn root() -> Self {
        Self { uid: 0, gid: 0, privileged: true }
    }
}

/// A file system over the rows of one drive. Share it by `Arc`; every method takes `&self`.
pub struct Vfs {
    rows: Rows,
    chunks: Arc<dyn ChunkSource>,
    hooks: Mutex<Arc<dyn Hooks>>,
    clock: Arc<dyn Now>,
    options: VfsOptions,
    nodes: NodeCache,
    inos: Mutex<InoBlock>,
    /// Held while a directory changes its parent: then parents can be walked.
    renames: Mutex<()>,
    /// Orphans whose rows wait for [`Vfs::reclaim`].
    reclaimable: Mutex<VecDeque<Ino>>,
    /// Who takes them away, and whether it was woken for that.
    keeper: Mutex<Option<std::thread::Thread>>,
    hastened: AtomicBool,
    /// Orphans of careful times, those of this round of housekeeping and of the one before.
    lingering: Mutex<(Vec<Ino>, Vec<Ino>)>,
    /// Rounds of housekeeping for which inodes outlive their last name (see [`Vfs::open_file`]).
    careful_rounds: AtomicU32,
    /// Inodes whose atime is newer in memory than at rest.
    atimes: Mutex<Vec<Ino>>,
    policies: policy::Known,
    read_only: AtomicBool,
    /// A [`Synced`].
    synced: AtomicU8,
    /// Who fetches what readers will ask for next.
    readahead: OnceLock<readahead::Readahead>,
}

struct InoBlock {
    next: Ino,
    end: Ino,
}

impl Vfs {
    /// Opens the file system: makes a root if there is none, ends truncations that a crash interrupted, and lists
    /// orphans for [`Vfs::reclaim`].
    pub fn open(
        rows: Rows,
        chunks: Arc<dyn ChunkSource>,
        hooks: Arc<dyn Hooks>,
        clock: Arc<dyn Now>,
        options: VfsOptions,
    ) -> Result<Self, FsError> {
        let vfs = Self {
            nodes: NodeCache::new(options.nodes_max, options.details_max),
            read_only: AtomicBool::new(options.read_only),
            rows,
            policies: policy::Known::default(),
            chunks,
            hooks: Mutex::new(hooks),
            clock,
            options,
            inos: Mutex::new(InoBlock { next: 0, end: 0 }),
            renames: Mutex::new(()),
            reclaimable: Mutex::default(),
            keeper: Mutex::default(),
            hastened: AtomicBool::new(false),
            lingering: Mutex::default(),
            careful_rounds: AtomicU32::new(0),
            atimes: Mutex::new(Vec::new()),
            synced: AtomicU8::new(Synced::Asked as u8),
            readahead: OnceLock::new(),
        };
        if vfs.rows.live().inode(ROOT_INO)?.is_none() {
            vfs.make_root()?;
        }
        vfs.recover_orphans()?;
        Ok(vfs)
    }

    fn make_root(&self) -> Result<(), FsError> {
        let now = self.now();
        let (uid, gid) = self.options.root_owner;
        let row =
            InodeRow { nlink: 2, parent: ROOT_INO, ..blank(Kind::Dir, 0o755, uid, gid, now, &self.options) };
        let mut txn = self.rows.begin();
        txn.put_inode(ROOT_INO, &row);
        txn.commit()?;
        Ok(())
    }

    /// The rows beneath, for whoever seals, restores or checks.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Replaces the hooks (the daemon attaches its durability source once it has one).
    pub fn set_hooks(&self, hooks: Arc<dyn Hooks>) {
        *self.hooks.lock() = hooks;
    }

    pub(crate) fn hooks(&self) -> Arc<dyn Hooks> {
        self.hooks.lock().clone()
    }

    /// Turns changes away from now on (a broken invariant, a higher term) or lets them in again.
    pub fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Ordering::Relaxed);
    }

    /// What is durable when a call returns, from now on.
    pub fn set_synced(&self, synced: Synced) {
        self.synced.store(synced as u8, Ordering::Relaxed);
    }

    /// Whether changes of names, at least, wait for the disk.
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Relaxed) > Synced::Asked as u8
    }

    /// At the end of a change, with no lock held.
    fn settle<T>(&self, changed: T, kind: Synced) -> Result<T, FsError> {
        if self.synced.load(Ordering::Relaxed) >= kind as u8 {
            let store = self.rows.store();
            store.sync(store.last_lsn())?;
        }
        Ok(changed)
    }

    fn require_writable(&self) -> Result<(), FsError> {
        if self.read_only.load(Ordering::Relaxed) { Err(FsError::ReadOnly) } else { Ok(()) }
    }

    /// Refuses to begin what may need `bytes` more room than there is.
    fn require_space(&self, bytes: u64) -> Result<(), FsError> {
        match self.room(bytes) {
            Room::Free | Room::Waits => Ok(()),
            Room::Stalled | Room::None => Err(FsError::NoSpace),
        }
    }

    /// Whether `bytes` more find room now. Nothing here waits for room (locks may be held): whoever brings requests does, before
    /// it begins one.
    pub fn room(&self, bytes: u64) -> Room {
        self.hooks().room(bytes)
    }

    fn now(&self) -> Time {
        self.clock.now()
    }

    fn node(&self, ino: Ino) -> Result<Arc<Node>, FsError> {
        self.nodes.get(&self.rows, ino)
    }

    /// Whether answering for this inode (or looking `name` up in it) may have to wait for the network, or for who waits for it:
    /// reads of rows of a restored drive happen under the locks of their inodes.
    pub fn may_block(&self, ino: Ino, name: Option<&[u8]>) -> bool {
        if !self.rows.has_base() {
            return false;
        }
        let Some(node) = self.nodes.peek(ino) else { return true };
        let Some(state) = node.try_write() else { return true };
        let Some(name) = name else { return false };
        match self.find_in_memory(&state, ino, name) {
            None => true,
            Some(None) => false,
            Some(Some(child)) => self.nodes.peek(child).is_none_or(|child| child.try_write().is_none()),
        }
    }

    /// The same for what looks at extended attributes (ACLs are some) of the inode.
    pub fn may_block_for_xattrs(&self, ino: Ino) -> bool {
        let must = |node: Arc<Node>| node.try_write().is_none_or(|state| state.row.has_xattrs());
        self.rows.has_base() && self.nodes.peek(ino).is_none_or(must)
    }

    /// The same for what needs the number of a new inode: which is free, the tree may say.
    pub fn may_block_for_number(&self) -> bool {
        self.rows.has_base() && self.inos.try_lock().is_none_or(|block| block.next == block.end)
    }

    /// Whether a file that is in memory has setuid or setgid bits. "Perhaps" counts, where only the network could tell.
    pub fn has_set_ids(&self, ino: Ino) -> bool {
        let has = |state: &State| state.row.perm & 0o6000 != 0;
        self.nodes.peek(ino).is_some_and(|node| match self.rows.has_base() {
            true => node.try_read().is_none_or(|state| has(&state)),
            false => has(&node.read()),
        })
    }

    /// Bytes that a file that is in memory takes, unless one would have to wait for the network to know.
    pub fn allocated(&self, ino: Ino) -> Option<u64> {
        let node = self.nodes.peek(ino)?;
        match self.rows.has_base() {
            true => node.try_read().map(|state| state.row.allocated),
            false => Some(node.read().row.allocated),
        }
    }

    /// The group of a file that is in memory, unless one would have to wait for the network to know.
    pub fn group(&self, ino: Ino) -> Option<u32> {
        let node = self.nodes.peek(ino)?;
        match self.rows.has_base() {
            true => node.try_read().map(|state| state.row.gid),
            false => Some(node.read().row.gid),
        }
    }

    /// Whether part of the drive may be elsewhere.
    pub fn has_base(&self) -> bool {
        self.rows.has_base()
    }

    /// A number that no inode ever had.
    fn new_ino(&self) -> Result<Ino, FsError> {
        let mut block = self.inos.lock();
        if block.next == block.end {
            let next = self.rows.live().next_ino()?;
            let mut txn = self.rows.begin();
            txn.put_next_ino(next + INO_BLOCK);
            txn.commit()?;
            *block = InoBlock { next, end: next + INO_BLOCK };
        }
        let ino = block.next;
        block.next += 1;
        Ok(ino)
    }

    /// Keeps an inode's rows while a file is open, whatever becomes of its names.
    ///
    /// Between the look-up of a name and this call the inode may be replaced, and die. The caller then looks up and opens
    /// once more, and must not come too late again: for a while inodes outlive their last name.
    pub fn open_file(&self, ino: Ino) -> Result<Attr, FsError> {
        let node = self.node(ino)?;
        let state = node.read();
        if state.dead {
            self.careful_rounds.store(CAREFUL_ROUNDS, Ordering::SeqCst);
            return Err(FsError::Stale);
        }
        node.opens.fetch_add(1, Ordering::Relaxed);
        Ok(Attr::of(ino, &state.row))
    }

    /// Ends what [`Vfs::open_file`] began; the last one out takes an orphan's rows away, or begins to.
    pub fn release_file(&self, ino: Ino) -> Result<(), FsError> {
        let node = self.node(ino)?;
        let orphan = {
            // Under the lock, so that an unlink either sees this file closed or leaves the orphan to us.
            let state = node.write();
            node.opens.fetch_sub(1, Ordering::Relaxed) == 1 && state.row.nlink == 0 && !state.dead
        };
        drop(node);
        if orphan {
            // One step here, the rest by whoever keeps house: the thread that hears this serves others too.
            self.let_go(ino);
        }
        Ok(())
    }

    /// The kernel let go of an inode: what is dead, or will be, leaves memory.
    pub fn forget(&self, ino: Ino) {
        self.nodes.forget(ino);
    }

    /// Returns when everything that this inode is or was is on disk, its name included.
    pub fn fsync(&self, ino: Ino) -> Result<(), FsError> {
        let store = self.rows.store();
        // Of one that is not in memory the row may be far away; all that was done is at hand.
        let lsn = self.nodes.peek(ino).map_or_else(|| store.last_lsn(), |node| node.read().row.lsn);
        store.sync(lsn)?;
        Ok(())
    }

    /// Whether [`Vfs::fsync`] would return at once. Does not wait to find that out.
    pub fn is_durable(&self, ino: Ino) -> bool {
        let store = self.rows.store();
        match self.nodes.peek(ino) {
            Some(node) => node.try_read().is_some_and(|state| store.durable_lsn() >= state.row.lsn),
            None => store.durable_lsn() >= store.last_lsn(),
        }
    }

    /// Returns when everything that was answered before is on disk.
    pub fn sync_all(&self) -> Result<(), FsError> {
        self.write_atimes()?;
        let store = self.rows.store();
        store.sync(store.last_lsn())?;
        Ok(())
    }

    /// Whether what needs room may have to wait for it.
    pub fn is_paced(&self) -> bool {
        self.hooks().is_paced()
    }

    /// The commits, if they can be shown.
    pub fn snapshots(&self) -> Option<Arc<dyn SnapshotSource>> {
        self.hooks().snapshots()
    }

    /// Room on the drive.
    pub fn statfs(&self) -> Space {
        self.hooks().space()
    }
}

/// An inode row with nothing in it yet.
fn blank(kind: Kind, perm: u16, uid: u32, gid: u32, now: Time, options: &VfsOptions) -> InodeRow {
    InodeRow {
        kind,
        perm,
        uid,
        gid,
        nlink: 1,
        size: 0,
        allocated: 0,
        rdev: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        generation: 0,
        chunk_log2: options.chunk_log2,
        flags: 0,
        parent: 0,
        lsn: 0,
        target: bytes::Bytes::new(),
    }
}

/// Refuses names that no directory can hold.
fn check_name(name: &[u8]) -> Result<(), FsError> {
    if name.len() > crate::rows::NAME_BYTES_MAX {
        return Err(FsError::NameTooLong);
    }
    if name.is_empty() {
        return Err(FsError::NotFound);
    }
    if name.contains(&0) || name.contains(&b'/') {
        return Err(FsError::Invalid);
    }
    Ok(())
}

/// Marks a directory changed by the coming or going of names.
fn touch_dir(state: &State, now: Time) -> InodeRow {
    let mut row = state.row.clone();
    row.mtime = now;
    row.ctime = now;
    row
}
