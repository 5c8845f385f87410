//! Sealing as a whole: what goes in comes out again, from the blocks alone, whatever happens in between.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod ahead;
mod cases;
mod crash;
mod marks;
mod pending;
mod policy;
mod random;
mod restore;
mod retention;
mod room;
mod snapshots;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_content::keys::{DriveKeys, Mnemonic};
use holdfast_content::retrieve::FakeRetriever;
use holdfast_content::rng::SeededRng;
use holdfast_store::{Clock, CrashMedium, IndexKind, MemoryIndex, StoreKeys, StoreOptions};

use crate::check::CheckOptions;
use crate::drive::{Ambient, CommitInfo, Drive, DriveOptions, Edges, Home, RestorePoint};
use crate::rows::{Ino, Kind, ROOT_INO, Time};
use crate::vfs::{Caller, NewNode, Now, Vfs, VfsOptions, WriteMode};

/// Chunks of a page, so that small files have deep DAGs.
pub(super) const CHUNK_LOG2: u8 = 12;
pub(super) const CHUNK: u64 = 1 << CHUNK_LOG2;

/// Time that moves when it is looked at.
#[derive(Default)]
pub(super) struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

impl Now for Ticks {
    fn now(&self) -> Time {
        let n = self.0.fetch_add(1, Ordering::Relaxed);
        Time { secs: 1_700_000_000 + (n / 1000) as i64, nanos: (n % 1000) as u32 * 1_000_000 }
    }
}

struct StoreRng(SeededRng);

impl holdfast_store::Rng for StoreRng {
    fn fill(&self, bytes: &mut [u8]) {
        holdfast_content::rng::Rng::fill(&self.0, bytes).unwrap();
    }
}

/// Media of one home, in memory.
#[derive(Clone, Default)]
pub(super) struct Media {
    pub(super) log: CrashMedium,
    pub(super) index: MemoryIndex,
    pub(super) pieces: CrashMedium,
}

impl Media {
    /// As the next process finds it after this one was killed.
    pub(super) fn killed(&self) -> Self {
        Self { log: self.log.killed(), index: self.index.after_crash(), pieces: self.pieces.killed() }
    }

    /// As the next boot finds it after the power was cut.
    pub(super) fn power_cut(&self, seed: u64) -> Self {
        Self {
            log: self.log.power_cut(seed),
            index: self.index.after_crash(),
            pieces: self.pieces.power_cut(seed ^ 0x5eed),
        }
    }

    fn home(&self) -> Home {
        Home {
            log: Arc::new(self.log.clone()),
            index: IndexKind::Shared(self.index.clone()),
            pieces: Arc::new(self.pieces.clone()),
            disk: None,
        }
    }
}

pub(super) fn keys() -> Arc<DriveKeys> {
    Arc::new(Mnemonic::from_entropy([9; 32]).root_key().generation(1).keys())
}

pub(super) fn options() -> DriveOptions {
    DriveOptions {
        piece_bytes_max: 64 << 10,
        tree_cache_bytes_max: 1 << 20,
        readahead_threads: 0,
        store: StoreOptions {
            log_segment_bytes: 1 << 20,
            first_segment_bytes: 256 << 10,
            data_segment_bytes: 1 << 20,
            background: false,
            ..StoreOptions::default()
        },
        ..DriveOptions::default()
    }
}

pub(super) fn vfs_options() -> VfsOptions {
    VfsOptions { chunk_log2: CHUNK_LOG2, ..VfsOptions::default() }
}

/// Each opening draws other random bytes, as a machine does.
static OPENINGS: AtomicU64 = AtomicU64::new(1);

pub(super) fn ambient() -> Ambient {
    let ticks = Arc::new(Ticks::default());
    let nth = OPENINGS.fetch_add(1, Ordering::Relaxed);
    Ambient {
        now: ticks.clone(),
        clock: ticks,
        store_rng: Arc::new(StoreRng(SeededRng::new(nth))),
        rng: Arc::new(SeededRng::new(!nth)),
    }
}

fn store_keys() -> StoreKeys {
    StoreKeys { log: [1; 32], index: [2; 32] }
}

pub(super) fn open_with(media: &Media, options: DriveOptions) -> Drive {
    let retriever = Arc::new(FakeRetriever::new());
    Drive::open_on(media.home(), keys(), store_keys(), options, vfs_options(), retriever, ambient()).unwrap()
}

pub(super) fn open(media: &Media) -> Drive {
    open_with(media, options())
}

pub(super) fn with_edges(edges: Edges) -> DriveOptions {
    DriveOptions { edges, ..options() }
}

/// An empty home that stands on a commit, with nothing but what the retriever gives.
pub(super) fn attach(media: &Media, commit: &CommitInfo, retriever: Arc<FakeRetriever>) -> Drive {
    let point = RestorePoint {
        commit: commit.commit.clone(),
        complete: None,
        location_root: commit.location_root.clone(),
    };
    Drive::attach_on(
        media.home(),
        keys(),
        store_keys(),
        options(),
        vfs_options(),
        point,
        retriever,
        ambient(),
    )
    .unwrap()
}

/// The network holds all local pieces.
pub(super) fn publish(drive: &Drive, retriever: &FakeRetriever) {
    for piece in drive.pieces().unwrap().iter().filter(|piece| piece.local) {
        let file = drive.open_piece(piece.id).unwrap();
        let mut bytes = vec![0; file.len() as usize];
        file.read_at(0, &mut bytes).unwrap();
        retriever.insert_piece(piece.id, bytes);
    }
}

/// Everything that a program can see of a drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    ino: Ino,
    kind: Kind,
    perm: u16,
    owner: (u32, u32),
    nlink: u32,
    mtime: Time,
    pub(super) content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

pub(super) type Dump = BTreeMap<String, Seen>;

/// Reads a whole drive.
pub(super) fn dump(vfs: &Vfs) -> Dump {
    let mut out = Dump::new();
    let mut folders = vec![(String::new(), ROOT_INO)];
    out.insert("/".to_owned(), see(vfs, ROOT_INO));
    while let Some((path, ino)) = folders.pop() {
        let mut cookie = 0;
        loop {
            let page = vfs.readdir(ino, cookie, 50).unwrap();
            if page.is_empty() {
                break;
            }
            for entry in page {
                cookie = entry.cookie;
                if entry.name == "." || entry.name == ".." {
                    continue;
                }
                let path = format!("{path}/{}", String::from_utf8_lossy(&entry.name));
                if entry.kind == Kind::Dir {
                    folders.push((path.clone(), entry.ino));
                }
                out.insert(path, see(vfs, entry.ino));
            }
        }
    }
    out
}

fn see(vfs: &Vfs, ino: Ino) -> Seen {
    let attr = vfs.getattr(ino).unwrap();
    let content = match attr.kind {
        Kind::File => {
            let mut content = vec![0xee; attr.size as usize + 10];
            let read = vfs.read(ino, 0, &mut content).unwrap();
            assert_eq!(read as u64, attr.size, "inode {ino}");
            content.truncate(read);
            content
        }
        Kind::Symlink => vfs.readlink(ino).unwrap().to_vec(),
        _ => Vec::new(),
    };
    let names = vfs.listxattr(&Caller::root(), ino).unwrap();
    let xattrs =
        names.iter().map(|name| (name.to_vec(), vfs.getxattr(ino, name).unwrap().to_vec())).collect();
    Seen {
        ino,
        kind: attr.kind,
        perm: attr.perm,
        owner: (attr.uid, attr.gid),
        nlink: attr.nlink,
        mtime: attr.mtime,
        content,
        xattrs,
    }
}

/// Panics unless the checker is content.
pub(super) fn check(drive: &Drive) {
    let report = drive.check(CheckOptions { deep: true }).unwrap();
    assert!(report.is_clean(), "{report}");
}

/// Seals, and proves that the commit alone gives back what is there now.
pub(super) fn seal_and_prove(drive: &Drive) -> Option<CommitInfo> {
    let before = dump(drive.vfs());
    let sealed = drive.seal().unwrap();
    assert_same(&before, &dump(drive.vfs()), "a seal changes nothing that can be seen");
    check(drive);
    if let Some(commit) = drive.latest_commit().unwrap() {
        let retriever = Arc::new(FakeRetriever::new());
        publish(drive, &retriever);
        let restored = attach(&Media::default(), &commit, retriever);
        assert_same(&before, &dump(restored.vfs()), "the commit is what was there");
        check(&restored);
    }
    sealed
}

/// Compares without printing megabytes.
pub(super) fn assert_same(a: &Dump, b: &Dump, why: &str) {
    let names: (Vec<_>, Vec<_>) = (a.keys().collect(), b.keys().collect());
    assert_eq!(names.0, names.1, "{why}: names");
    for (path, seen) in a {
        let other = &b[path];
        let at = seen.content.iter().zip(&other.content).position(|(x, y)| x != y);
        assert_eq!((seen.content.len(), at), (other.content.len(), None), "{why}: bytes of {path}");
        assert!(seen == other, "{why}: {path}");
    }
}

pub(super) fn create(vfs: &Vfs, parent: Ino, name: &str) -> Ino {
    vfs.create(&Caller::root(), parent, name.as_bytes(), &NewNode::file(0o644, 0)).unwrap().ino
}

pub(super) fn mkdir(vfs: &Vfs, parent: Ino, name: &str) -> Ino {
    vfs.create(&Caller::root(), parent, name.as_bytes(), &NewNode::dir(0o755, 0)).unwrap().ino
}

pub(super) fn write(vfs: &Vfs, ino: Ino, off: u64, data: &[u8]) {
    assert_eq!(vfs.write(ino, off, data, WriteMode::default()).unwrap(), data.len());
}

pub(super) fn truncate(vfs: &Vfs, ino: Ino, size: u64) {
    let set = crate::vfs::SetAttr { size: Some(size), ..Default::default() };
    vfs.setattr(&Caller::root(), ino, &set).unwrap();
}

/// Bytes that compress badly and differ from seed to seed.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    holdfast_content::rng::Rng::fill(&SeededRng::new(seed), &mut bytes).unwrap();
    bytes
}
