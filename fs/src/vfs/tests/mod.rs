#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod base;
mod calls;
mod listing;
mod model;
mod power;
mod room;
mod sealed;
mod trim;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use holdfast_store::{
    CrashMedium, IndexKind, MemoryIndex, StorageMedium, Store, StoreKeys, StoreOptions, SystemClock,
    SystemRng,
};
use parking_lot::Mutex;

use super::*;
use crate::rows::{ChunkRow, NameKey};

/// A clock that moves one second at each look.
#[derive(Default)]
struct Ticks(AtomicI64);

impl Now for Ticks {
    fn now(&self) -> Time {
        Time { secs: 1_000 + self.0.fetch_add(1, Ordering::Relaxed), nanos: 5 }
    }
}

/// Chunks in memory, named by what they hold.
#[derive(Default)]
struct FakeChunks(Mutex<HashMap<[u8; 32], Bytes>>);

impl FakeChunks {
    fn seal(&self, plain: &[u8], cut: holdfast_store::Lsn) -> ChunkRow {
        let digest = *blake3::hash(plain).as_bytes();
        self.0.lock().insert(digest, Bytes::copy_from_slice(plain));
        let len = u32::try_from(plain.len()).unwrap();
        ChunkRow { digest, key: [9; 32], codec: 0, plain_len: len, block_len: len, cut }
    }
}

impl ChunkSource for FakeChunks {
    fn read_chunk(&self, chunk: &ChunkRow) -> Result<Bytes, ChunkError> {
        self.0.lock().get(&chunk.digest).cloned().ok_or(ChunkError::Unreachable)
    }

    fn is_local(&self, chunk: &ChunkRow) -> bool {
        self.0.lock().contains_key(&chunk.digest)
    }
}

/// A drive in memory that can be killed and started again.
struct Drive {
    medium: CrashMedium,
    index: MemoryIndex,
    chunks: Arc<FakeChunks>,
    vfs: Arc<Vfs>,
}

const ROOM: Space = Space { total: 1 << 40, free: 1 << 39 };
const ROOT: Caller = Caller { uid: 0, gid: 0, privileged: true };
const USER: Caller = Caller { uid: 7, gid: 8, privileged: false };

fn store_options() -> StoreOptions {
    StoreOptions {
        log_segment_bytes: 4 << 20,
        first_segment_bytes: 1 << 20,
        data_segment_bytes: 4 << 20,
        background: false,
        ..StoreOptions::default()
    }
}

impl Drive {
    fn new() -> Self {
        Self::start(CrashMedium::new(), MemoryIndex::new(), Arc::new(FakeChunks::default()))
    }

    fn start(medium: CrashMedium, index: MemoryIndex, chunks: Arc<FakeChunks>) -> Self {
        let beneath = Arc::new(medium.clone());
        Self::start_on(medium, beneath, index, chunks, store_options())
    }

    /// The same with a medium of the test's own between the store and `medium`.
    fn start_on(
        medium: CrashMedium,
        beneath: Arc<dyn StorageMedium>,
        index: MemoryIndex,
        chunks: Arc<FakeChunks>,
        options: StoreOptions,
    ) -> Self {
        let (store, _) = Store::open(
            beneath,
            IndexKind::Shared(index.clone()),
            StoreKeys { log: [1; 32], index: [2; 32] },
            options,
            Arc::new(SystemClock::new()),
            Arc::new(SystemRng),
        )
        .unwrap();
        let rows = Rows::new(store, NameKey::new([3; 32]), None);
        Self::over(rows, medium, index, chunks, VfsOptions::default())
    }

    /// Small chunks and small caches, so that little data goes through everything.
    fn over(
        rows: Rows,
        medium: CrashMedium,
        index: MemoryIndex,
        chunks: Arc<FakeChunks>,
        options: VfsOptions,
    ) -> Self {
        let options = VfsOptions { chunk_log2: 12, nodes_max: 64, dir_keep_entries_max: 6, ..options };
        let hooks = Arc::new(PlainHooks { space: ROOM });
        let vfs = Vfs::open(rows, chunks.clone(), hooks, Arc::new(Ticks::default()), options).unwrap();
        Self { medium, index, chunks, vfs: Arc::new(vfs) }
    }

    /// The same drive, never reading a directory of more than so many entries into memory.
    fn reading_no_more_than(self, dir_load_entries_max: u64) -> Self {
        let (medium, index, chunks) = (self.medium.clone(), self.index.clone(), self.chunks.clone());
        let rows = Rows::new(self.vfs.rows().store().clone(), NameKey::new([3; 32]), None);
        drop(self);
        Self::over(rows, medium, index, chunks, VfsOptions { dir_load_entries_max, ..VfsOptions::default() })
    }

    /// What is there after the process was killed: all that was answered.
    fn killed(self) -> Self {
        let (medium, index) = (self.medium.killed(), self.index.after_crash());
        let chunks = self.chunks.clone();
        drop(self);
        Self::start(medium, index, chunks)
    }

    fn file(&self, name: &str) -> Ino {
        self.vfs.create(&ROOT, ROOT_INO, name.as_bytes(), &NewNode::file(0o644, 0)).unwrap().ino
    }

    fn dir(&self, name: &str) -> Ino {
        self.vfs.create(&ROOT, ROOT_INO, name.as_bytes(), &NewNode::dir(0o755, 0)).unwrap().ino
    }

    fn write(&self, ino: Ino, off: u64, data: &[u8]) {
        assert_eq!(self.vfs.write(ino, off, data, WriteMode::default()).unwrap(), data.len());
    }

    fn read(&self, ino: Ino) -> Vec<u8> {
        let size = usize::try_from(self.vfs.getattr(ino).unwrap().size).unwrap();
        let mut buf = vec![0xaa; size + 10];
        let n = self.vfs.read(ino, 0, &mut buf).unwrap();
        assert_eq!(n, size);
        buf.truncate(n);
        buf
    }

    fn names(&self, dir: Ino) -> Vec<String> {
        let mut names: Vec<String> = self
            .vfs
            .readdir(dir, 2, usize::MAX)
            .unwrap()
            .into_iter()
            .map(|entry| String::from_utf8(entry.name.to_vec()).unwrap())
            .collect();
        names.sort();
        names
    }

    /// No orphan and no payload is left once everything is reclaimed and every file is gone.
    fn assert_nothing_left(&self) {
        while self.vfs.reclaim(1 << 20).unwrap() {}
        for entry in self.vfs.readdir(ROOT_INO, 2, 100_000).unwrap() {
            self.remove_all(ROOT_INO, &entry);
        }
        while self.vfs.reclaim(1 << 20).unwrap() {}
        assert_eq!(self.vfs.rows().live().orphans(0, 10).unwrap(), vec![]);
        let usage = self.vfs.rows().store().usage();
        assert_eq!((usage.live_payloads, usage.live_payload_bytes), (0, 0));
        assert_eq!(self.vfs.getattr(ROOT_INO).unwrap().nlink, 2);
    }

    fn remove_all(&self, parent: Ino, entry: &DirEntry) {
        if entry.kind == Kind::Dir {
            for below in self.vfs.readdir(entry.ino, 2, 100_000).unwrap() {
                self.remove_all(entry.ino, &below);
            }
            self.vfs.rmdir(parent, &entry.name).unwrap();
        } else {
            self.vfs.unlink(parent, &entry.name).unwrap();
        }
    }
}

fn errno<T: std::fmt::Debug>(result: Result<T, FsError>) -> i32 {
    result.unwrap_err().errno()
}
