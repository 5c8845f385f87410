//! Mounts a file system over a store in a folder: no keys to remember, no network, nothing sealed. For trying out
//! the file system by itself, and for driving suites against it.
//!
//!     mount_plain STORE MOUNTPOINT [-o OPTIONS] [--room BYTES]
//!
//! The store's keys are constants, so do not keep anything in it. Ends when it is unmounted (umount, Ctrl-C). Without
//! `--room`, there is as much room as on the disk below.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_fs::fuse::{MountOptions, mount};
use holdfast_fs::rows::{Ino, NameKey, Rows};
use holdfast_fs::vfs::{Hooks, NoChunks, Space, SystemTime, Vfs, VfsOptions};
use holdfast_store::{IndexKind, RealMedium, Store, StoreKeys, StoreOptions, SystemClock, SystemRng};

/// How old the figure of free room may be.
const REFRESH: Duration = Duration::from_millis(250);
/// Room that is never given away: for the kernel's dirty pages, deletions and the index.
const RESERVE_BYTES: u64 = 256 << 20;

struct Arguments {
    store: PathBuf,
    mountpoint: PathBuf,
    options: MountOptions,
    room: u64,
}

fn arguments() -> Result<Arguments, Box<dyn std::error::Error>> {
    let mut options = MountOptions::default();
    let (mut paths, mut room) = (Vec::new(), u64::MAX);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "-o" => options.parse(&value()?)?,
            "--room" => room = value()?.parse()?,
            _ => paths.push(PathBuf::from(word)),
        }
    }
    match <[PathBuf; 2]>::try_from(paths) {
        Ok([store, mountpoint]) => Ok(Arguments { store, mountpoint, options, room }),
        Err(_) => Err("usage: mount_plain STORE MOUNTPOINT [-o OPTIONS] [--room BYTES]".into()),
    }
}

/// Room by what the store takes and what the disk has, looked at now and then.
struct Gauge {
    total: AtomicU64,
    free: AtomicU64,
}

impl Gauge {
    fn refresh(&self, store: &Store, folder: &std::path::Path, room: u64) {
        let Ok(disk) = nix::sys::statvfs::statvfs(folder) else { return };
        let unit = disk.fragment_size();
        let usage = store.usage();
        let used = usage.disk_bytes.saturating_sub(usage.recycled_bytes).saturating_add(usage.index_bytes);
        let free = (disk.blocks_available() * unit).saturating_add(usage.recycled_bytes);
        let total = room.min(disk.blocks() * unit);
        self.total.store(total, Ordering::Relaxed);
        let free = free.saturating_sub(RESERVE_BYTES).min(total.saturating_sub(used));
        self.free.store(free, Ordering::Relaxed);
    }
}

impl Hooks for Gauge {
    fn durability(&self, _ino: Ino) -> Option<String> {
        None
    }

    fn space(&self) -> Space {
        Space { total: self.total.load(Ordering::Relaxed), free: self.free.load(Ordering::Relaxed) }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Arguments { store: folder, mountpoint, options, room } = arguments()?;
    let log = folder.join("log");
    std::fs::create_dir_all(&log)?;
    let keys = StoreKeys { log: [1; 32], index: [2; 32] };
    let (store, report) = Store::open(
        Arc::new(RealMedium::open(&log)?),
        IndexKind::Rocks(folder.join("index")),
        keys,
        StoreOptions::default(),
        Arc::new(SystemClock::new()),
        Arc::new(SystemRng),
    )?;
    println!("{report:?}");
    let gauge = Arc::new(Gauge { total: AtomicU64::new(0), free: AtomicU64::new(0) });
    gauge.refresh(&store, &folder, room);
    let vfs_options = VfsOptions {
        root_owner: (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()),
        read_only: options.read_only,
        no_atime: !options.atime,
        no_dir_atime: !options.dir_atime,
        ..VfsOptions::default()
    };
    let vfs = Arc::new(Vfs::open(
        Rows::new(store.clone(), NameKey::new([3; 32]), None),
        Arc::new(NoChunks),
        gauge.clone(),
        Arc::new(SystemTime),
        vfs_options,
    )?);
    let handle = mount(vfs, &mountpoint, &options)?;
    println!("mounted at {}", handle.mountpoint().display());
    while handle.is_serving() {
        std::thread::sleep(REFRESH);
        gauge.refresh(&store, &folder, room);
    }
    handle.wait()?;
    println!("{:?}", store.usage());
    store.close()?;
    Ok(())
}
