//! Inodes in memory: one lock each, and a bounded cache that never holds two of one number.
//!
//! Lock order: locks of several inodes are taken in ascending order of their numbers ([`lock_many`]), nothing
//! else of this crate is taken under a cache shard's mutex, and a shard's mutex is never held while an inode's
//! lock is waited for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use holdfast_store::Lsn;
use lru::LruCache;
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::rows::{ChunkRow, Ino, InodeRow, Kind, Rows, Tag, inode_flags};

use super::ahead::Ahead;
use super::error::FsError;
use super::extents::ExtentMap;
use super::names::Names;

/// A slot of a directory that is wholly in memory. `ino` 0: a collision tombstone.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) ino: Ino,
    pub(crate) kind: Kind,
    pub(crate) name: Bytes,
}

/// All slots of a directory, so that what is absent here is absent.
pub(crate) type DirMap = BTreeMap<Tag, Slot>;

/// What is known of one inode. Everything but `row` is a cache of rows.
pub(crate) struct State {
    pub(crate) row: InodeRow,
    /// The rows are gone; the inode lives on in memory for whoever still looks at it.
    pub(crate) dead: bool,
    /// All extents, once they were needed.
    pub(crate) extents: Option<ExtentMap>,
    /// All slots, if the directory is small enough.
    pub(crate) dir: Option<DirMap>,
    /// Which slots are in use, if it is too large for that and was in memory when it grew.
    pub(crate) names: Option<Box<Names>>,
    /// Names that were looked for while the directory was not in memory.
    pub(crate) probes: AtomicU32,
    /// The last few chunk rows that were read (`None`: a hole). Emptied by whoever changes chunks.
    pub(crate) chunks: Mutex<BTreeMap<u64, Option<ChunkRow>>>,
    /// Who reads it in order, where that takes the network.
    pub(crate) ahead: Mutex<Option<Box<Ahead>>>,
    /// `row.atime` is newer than the row at rest.
    pub(crate) atime_dirty: bool,
    /// A truncation to this byte stands under its mark: extents behind it are still to go, before the file may grow.
    pub(crate) trimming: Option<u64>,
    /// What [`NodeCache::recount`] last counted here.
    pub(crate) counted: usize,
}

impl State {
    pub(crate) fn new(row: InodeRow) -> Self {
        Self {
            row,
            dead: false,
            extents: None,
            dir: None,
            names: None,
            probes: AtomicU32::new(0),
            chunks: Mutex::new(BTreeMap::new()),
            ahead: Mutex::new(None),
            atime_dirty: false,
            trimming: None,
            counted: 0,
        }
    }

    /// Refuses what has no name left, for calls that need one.
    pub(crate) fn require_live_dir(&self) -> Result<(), FsError> {
        match (self.row.kind, self.row.nlink) {
            (Kind::Dir, 0) => Err(FsError::NotFound),
            (Kind::Dir, _) => Ok(()),
            _ => Err(FsError::NotDir),
        }
    }
}

/// One inode.
pub(crate) struct Node {
    pub(crate) ino: Ino,
    loaded: AtomicBool,
    /// Open files; while there are any, the node stays in the cache and its rows at rest.
    pub(crate) opens: AtomicU32,
    /// The kernel let go of it since its last name went, so that nobody asks for it once it is dead.
    pub(crate) forgotten: AtomicBool,
    /// Directories: `row.parent`, readable without the lock. Changes only under the rename lock.
    pub(crate) parent: AtomicU64,
    state: RwLock<State>,
}

impl Node {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write()
    }

    /// For who must not wait: a holder of the lock may be waiting for the network.
    pub(crate) fn try_read(&self) -> Option<RwLockReadGuard<'_, State>> {
        self.state.try_read()
    }

    /// The same where the lock is needed alone.
    pub(crate) fn try_write(&self) -> Option<RwLockWriteGuard<'_, State>> {
        self.state.try_write()
    }

    /// Becomes loaded. The caller holds the lock, and the row is the newest. `bare`: it is known to have no extents.
    fn take(&self, state: &mut State, row: InodeRow, bare: bool) {
        self.parent.store(row.parent, Ordering::Relaxed);
        // One without a name that the kernel knows stays in memory: this one is from before the start.
        self.forgotten.store(row.nlink == 0, Ordering::SeqCst);
        *state = State::new(row);
        state.extents = bare.then(ExtentMap::new);
        self.loaded.store(true, Ordering::Release);
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }
}

/// Shards; a power of two well above the number of threads.
const SHARDS: usize = 16;
/// How many nodes in use the evictor passes over before it lets the cache be too big for a while.
const EVICT_TRIES: usize = 8;

/// Words of [`Bare`] in a shard at most: so many times 64 files, in twice so many times 16 bytes.
const BARE_WORDS_MAX: usize = 4096;

/// Files that left memory while it was known that they have no extents, a bit each: who deletes or changes one later need not look for any, which
/// costs more than all else about it. What is not here is not known. Numbers are those within a shard.
#[derive(Default)]
struct Bare(HashMap<u64, u64>);

impl Bare {
    fn place(ino: Ino) -> (u64, u64) {
        let nth = ino / SHARDS as u64;
        (nth / 64, 1 << (nth % 64))
    }

    fn note(&mut self, ino: Ino) {
        let (word, bit) = Self::place(ino);
        if self.0.len() >= BARE_WORDS_MAX && !self.0.contains_key(&word) {
            // What is forgotten is looked for again.
            self.0.clear();
        }
        *self.0.entry(word).or_default() |= bit;
    }

    /// Whether it was noted. From here on its node knows.
    fn take(&mut self, ino: Ino) -> bool {
        let (word, bit) = Self::place(ino);
        let Some(bits) = self.0.get_mut(&word) else { return false };
        let noted = *bits & bit != 0;
        *bits &= !bit;
        if *bits == 0 {
            self.0.remove(&word);
        }
        noted
    }
}

/// The nodes of some numbers.
struct Shard {
    nodes: LruCache<Ino, Arc<Node>>,
    bare: Bare,
}

/// All nodes in memory.
pub(crate) struct NodeCache {
    shards: Vec<Mutex<Shard>>,
    nodes_max: usize,
    /// Extents and slots held by all nodes; counted as they are loaded and grow, so approximate.
    details: AtomicUsize,
    details_max: usize,
}

impl NodeCache {
    pub(crate) fn new(nodes_max: usize, details_max: usize) -> Self {
        let shards = (0..SHARDS)
            .map(|_| Mutex::new(Shard { nodes: LruCache::unbounded(), bare: Bare::default() }))
            .collect();
        Self { shards, nodes_max: nodes_max.div_ceil(SHARDS), details: AtomicUsize::new(0), details_max }
    }

    fn shard(&self, ino: Ino) -> &Mutex<Shard> {
        let at = usize::try_from(ino).unwrap_or_default() % self.shards.len().max(1);
        // `at` is below the length; the first shard stands in for a case that cannot occur.
        self.shards.get(at).unwrap_or(&self.shards[0])
    }

    /// The node if it is in memory and loaded.
    pub(crate) fn peek(&self, ino: Ino) -> Option<Arc<Node>> {
        self.shard(ino).lock().nodes.get(&ino).filter(|node| node.is_loaded()).cloned()
    }

    /// The node, loaded from its row if need be.
    pub(crate) fn get(&self, rows: &Rows, ino: Ino) -> Result<Arc<Node>, FsError> {
        let node = self.placed(ino);
        if !node.is_loaded() {
            self.load(rows, &node)?;
        }
        Ok(node)
    }

    /// The node, loaded or not.
    fn placed(&self, ino: Ino) -> Arc<Node> {
        let mut shard = self.shard(ino).lock();
        if let Some(node) = shard.nodes.get(&ino) {
            return node.clone();
        }
        let node = Arc::new(Node {
            ino,
            loaded: AtomicBool::new(false),
            opens: AtomicU32::new(0),
            forgotten: AtomicBool::new(false),
            parent: AtomicU64::new(0),
            state: RwLock::new(State::new(placeholder())),
        });
        shard.nodes.push(ino, node.clone());
        self.evict(&mut shard);
        node
    }

    /// Loads nodes from rows that were read together when `as_of` was the last record. Whatever changes a row makes a record, under the
    /// node's lock: if there is none since, with the locks held, the rows are as they were. Else nothing is taken.
    pub(crate) fn offer(&self, rows: &Rows, as_of: Lsn, found: Vec<(Ino, InodeRow)>) {
        let placed: Vec<_> = found.into_iter().map(|(ino, row)| (self.placed(ino), row)).collect();
        let unloaded = placed.iter().filter(|(node, _)| !node.is_loaded());
        let locked: Vec<_> =
            unloaded.filter_map(|(node, row)| Some((node, row, node.try_write()?))).collect();
        if rows.store().last_lsn() != as_of {
            return;
        }
        for (node, row, mut state) in locked {
            if !node.is_loaded() {
                let bare = self.shard(node.ino).lock().bare.take(node.ino);
                node.take(&mut state, row.clone(), bare);
            }
        }
    }

    fn load(&self, rows: &Rows, node: &Arc<Node>) -> Result<(), FsError> {
        let mut state = node.write();
        if node.is_loaded() {
            return Ok(());
        }
        match rows.live().inode(node.ino)? {
            Some(mut row) => {
                // A commit's rows were cut before its chunks were installed, so the tree's flag may lag behind.
                if rows.has_base() && row.kind == Kind::File && row.size > 0 {
                    row.flags |= inode_flags::HAS_CHUNKS;
                }
                let bare = self.shard(node.ino).lock().bare.take(node.ino);
                node.take(&mut state, row, bare);
                Ok(())
            }
            None => {
                let mut shard = self.shard(node.ino).lock();
                if shard.nodes.peek(&node.ino).is_some_and(|held| Arc::ptr_eq(held, node)) {
                    shard.nodes.pop(&node.ino);
                }
                Err(FsError::NotFound)
            }
        }
    }

    /// Adds an inode that was just created.
    pub(crate) fn insert(&self, ino: Ino, state: State) -> Arc<Node> {
        let node = Arc::new(Node {
            ino,
            loaded: AtomicBool::new(true),
            opens: AtomicU32::new(0),
            forgotten: AtomicBool::new(false),
            parent: AtomicU64::new(state.row.parent),
            state: RwLock::new(state),
        });
        let mut shard = self.shard(ino).lock();
        shard.nodes.push(ino, node.clone());
        self.evict(&mut shard);
        node
    }

    /// The kernel let go of an inode. A dead one goes at once; one that dies later goes then.
    pub(crate) fn forget(&self, ino: Ino) {
        let mut shard = self.shard(ino).lock();
        // Set before the look at it: whoever is burying it just now looks at this after that.
        if let Some(node) = shard.nodes.peek(&ino) {
            node.forgotten.store(true, Ordering::SeqCst);
        }
        self.drop_dead(&mut shard, ino);
    }

    /// After a burial: drops the node if the kernel let go of it before. While somebody uses it it stays, and is evicted in time.
    pub(crate) fn buried(&self, ino: Ino) {
        let mut shard = self.shard(ino).lock();
        self.drop_dead(&mut shard, ino);
    }

    fn drop_dead(&self, shard: &mut Shard, ino: Ino) {
        let unused = shard.nodes.peek(&ino).is_some_and(|node| {
            Arc::strong_count(node) == 1
                && node.opens.load(Ordering::Relaxed) == 0
                && node.forgotten.load(Ordering::SeqCst)
                && node.state.try_read().is_some_and(|state| state.dead)
        });
        if unused && let Some(node) = shard.nodes.pop(&ino) {
            self.details.fetch_sub(node.read().counted, Ordering::Relaxed);
        }
    }

    /// Counts what a node's state holds now; called after its maps were loaded or changed.
    pub(crate) fn recount(&self, state: &mut State) {
        let held = state.extents.as_ref().map_or(0, BTreeMap::len)
            + state.dir.as_ref().map_or(0, BTreeMap::len)
            + state.names.as_ref().map_or(0, |names| names.weight());
        let before = std::mem::replace(&mut state.counted, held);
        self.details.fetch_add(held, Ordering::Relaxed);
        self.details.fetch_sub(before, Ordering::Relaxed);
    }

    fn evict(&self, shard: &mut Shard) {
        let mut tries = EVICT_TRIES;
        while tries > 0 {
            let too_many = shard.nodes.len() > self.nodes_max;
            if !too_many && self.details.load(Ordering::Relaxed) <= self.details_max {
                return;
            }
            let Some((ino, node)) = shard.nodes.pop_lru() else { return };
            // Only this cache hands out references, under this mutex: a count of one stays one. What has no name lives
            // here alone, for whoever still looks at it (a working directory that was removed), until the kernel lets go.
            let keep = Arc::strong_count(&node) > 1
                || node.opens.load(Ordering::Relaxed) > 0
                || node.state.try_read().is_none_or(|state| {
                    let nameless = node.is_loaded() && state.row.nlink == 0;
                    // What has no details makes no room for details.
                    (!too_many && state.counted == 0)
                        || (state.atime_dirty && !state.dead)
                        || state.trimming.is_some()
                        || (nameless && !node.forgotten.load(Ordering::SeqCst))
                });
            if keep {
                shard.nodes.push(ino, node);
                tries -= 1;
            } else {
                let state = node.read();
                self.details.fetch_sub(state.counted, Ordering::Relaxed);
                let is_bare = state.row.kind == Kind::File && !state.dead && node.is_loaded();
                if is_bare && state.extents.as_ref().is_some_and(ExtentMap::is_empty) {
                    shard.bare.note(ino);
                }
            }
        }
    }
}

fn placeholder() -> InodeRow {
    use crate::rows::Time;
    InodeRow {
        kind: Kind::File,
        perm: 0,
        uid: 0,
        gid: 0,
        nlink: 0,
        size: 0,
        allocated: 0,
        rdev: 0,
        atime: Time::default(),
        mtime: Time::default(),
        ctime: Time::default(),
        btime: Time::default(),
        generation: 0,
        chunk_log2: crate::rows::inode::CHUNK_LOG2_DEFAULT,
        flags: 0,
        parent: 0,
        lsn: 0,
        target: Bytes::new(),
    }
}

/// Write locks of several inodes, taken in ascending order.
pub(crate) struct Locked<'a> {
    guards: Vec<(Ino, RwLockWriteGuard<'a, State>)>,
}

/// Locks the given nodes; one that is given twice is locked once.
pub(crate) fn lock_many<'a>(nodes: &[&'a Arc<Node>]) -> Locked<'a> {
    let mut sorted: Vec<&'a Arc<Node>> = nodes.to_vec();
    sorted.sort_by_key(|node| node.ino);
    sorted.dedup_by_key(|node| node.ino);
    Locked { guards: sorted.into_iter().map(|node| (node.ino, node.write())).collect() }
}

impl Locked<'_> {
    /// All of them, in ascending order of their numbers.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Ino, &mut State)> {
        self.guards.iter_mut().map(|(ino, guard)| (*ino, &mut **guard))
    }

    /// The state of a node that was among those given.
    pub(crate) fn get(&mut self, ino: Ino) -> Result<&mut State, FsError> {
        self.guards
            .iter_mut()
            .find(|(held, _)| *held == ino)
            .map(|(_, guard)| &mut **guard)
            .ok_or_else(|| FsError::Damaged(format!("inode {ino} is not locked")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn file(extents: Option<ExtentMap>) -> State {
        let mut state = State::new(InodeRow { nlink: 1, ..placeholder() });
        state.extents = extents;
        state
    }

    /// Of what leaves memory only that stays known that it has no extents, and only until it is in memory again.
    #[test]
    fn a_file_without_extents_is_known_to_have_none() {
        let cache = NodeCache::new(SHARDS, usize::MAX);
        let one = BTreeMap::from([(0, crate::vfs::extents::zeros(9, 1))]);
        let ino = |n: u64| n * SHARDS as u64;
        cache.insert(ino(1), file(Some(ExtentMap::new())));
        cache.insert(ino(2), file(None));
        cache.insert(ino(3), file(Some(one)));
        let mut dead = file(Some(ExtentMap::new()));
        dead.dead = true;
        cache.insert(ino(4), dead).forgotten.store(true, Ordering::SeqCst);
        cache.insert(ino(5), file(None));
        assert!((1..5).all(|n| cache.peek(ino(n)).is_none()));
        let take = |n| cache.shard(ino(n)).lock().bare.take(ino(n));
        assert_eq!([1, 1, 2, 3, 4].map(take), [true, false, false, false, false]);
    }

    #[test]
    fn what_is_noted_of_files_is_bounded() {
        let mut bare = Bare::default();
        for n in 0..(BARE_WORDS_MAX as u64 + 10) * 64 {
            bare.note(n * SHARDS as u64);
            assert!(bare.0.len() <= BARE_WORDS_MAX);
        }
        let last = (BARE_WORDS_MAX as u64 + 10) * 64 - 1;
        assert!(bare.take(last * SHARDS as u64) && !bare.take(last * SHARDS as u64));
        assert!(!bare.take(0), "forgotten");
    }

    /// Many details in use must not cost all that is known of others.
    #[test]
    fn what_has_no_details_stays_when_there_are_too_many() {
        let cache = NodeCache::new(1_000 * SHARDS, 10);
        let state = |slots: u64| {
            let mut state = State::new(InodeRow { kind: Kind::Dir, nlink: 2, ..placeholder() });
            let slot = Slot { ino: 1, kind: Kind::File, name: Bytes::new() };
            state.dir = Some((0..slots).map(|tag| (tag, slot.clone())).collect());
            cache.recount(&mut state);
            state
        };
        // All in one shard.
        let ino = |n: u64| n * SHARDS as u64;
        cache.insert(ino(1), state(100)).opens.fetch_add(1, Ordering::Relaxed);
        for n in 2..100 {
            cache.insert(ino(n), state(0));
        }
        assert!((1..100).all(|n| cache.peek(ino(n)).is_some()));
        // And those that have some make room once they are not used.
        cache.peek(ino(1)).unwrap().opens.fetch_sub(1, Ordering::Relaxed);
        for n in 100..200 {
            cache.insert(ino(n), state(0));
        }
        assert!(cache.peek(ino(1)).is_none() && cache.details.load(Ordering::Relaxed) == 0);
        assert!((2..200).all(|n| cache.peek(ino(n)).is_some()));
    }
}
