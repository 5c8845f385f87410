//! Mounts a file system over a store in a folder: no keys to remember, no network, nothing sealed. For trying out
//! the file system by itself.
//!
//!     mount_plain STORE MOUNTPOINT [-o OPTIONS]
//!
//! The store's keys are constants, so do not keep anything in it. Ends when it is unmounted (umount, Ctrl-C).

use std::path::PathBuf;
use std::sync::Arc;

use holdfast_fs::fuse::{MountOptions, mount};
use holdfast_fs::rows::{NameKey, Rows};
use holdfast_fs::vfs::{NoChunks, PlainHooks, Space, SystemTime, Vfs, VfsOptions};
use holdfast_store::{IndexKind, RealMedium, Store, StoreKeys, StoreOptions, SystemClock, SystemRng};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (store_dir, mountpoint, list) = match args.as_slice() {
        [store, mountpoint] => (PathBuf::from(store), PathBuf::from(mountpoint), ""),
        [store, mountpoint, flag, list] if flag == "-o" => {
            (PathBuf::from(store), PathBuf::from(mountpoint), list.as_str())
        }
        _ => return Err("usage: mount_plain STORE MOUNTPOINT [-o OPTIONS]".into()),
    };
    let mut options = MountOptions::default();
    options.parse(list)?;
    let log = store_dir.join("log");
    std::fs::create_dir_all(&log)?;
    let keys = StoreKeys { log: [1; 32], index: [2; 32] };
    let (store, report) = Store::open(
        Arc::new(RealMedium::open(&log)?),
        IndexKind::Rocks(store_dir.join("index")),
        keys,
        StoreOptions::default(),
        Arc::new(SystemClock::new()),
        Arc::new(SystemRng),
    )?;
    println!("{report:?}");
    let disk = nix::sys::statvfs::statvfs(&store_dir)?;
    let unit = disk.fragment_size();
    let space = Space { total: disk.blocks() * unit, free: disk.blocks_available() * unit };
    let vfs_options = VfsOptions {
        root_owner: (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()),
        read_only: options.read_only,
        no_atime: !options.atime,
        ..VfsOptions::default()
    };
    let vfs = Arc::new(Vfs::open(
        Rows::new(store.clone(), NameKey::new([3; 32]), None),
        Arc::new(NoChunks),
        Arc::new(PlainHooks { space }),
        Arc::new(SystemTime),
        vfs_options,
    )?);
    let handle = mount(vfs, &mountpoint, &options)?;
    println!("mounted at {}", handle.mountpoint().display());
    handle.wait()?;
    println!("{:?}", store.usage());
    store.close()?;
    Ok(())
}
