//! The edge to the kernel: decodes a request, calls the [`Vfs`](crate::vfs::Vfs), encodes the answer. No meaning lives here.
//!
//! Promises: every request is answered within 10 s, whatever the network does; what may wait (fsync, reads of chunks
//! that are not on this machine) waits on pools of its own, never on the threads that read requests. Losing the
//! process aborts the connection, so that callers get an error instead of a hang.
//!
//! Refuses: mount options that it does not know.

mod affinity;
mod caller;
mod convert;
mod data;
mod edge;
mod frozen;
mod init;
mod mount;
mod options;
mod pacing;
mod pool;
mod reply;
mod serve;
mod serving;
mod stale;
mod thumbnails;
mod writers;

use std::io;
use std::path::PathBuf;

pub use mount::{MountHandle, mount};
pub use options::MountOptions;

/// Why a mount or an unmount failed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("unknown mount option \"{0}\"")]
    UnknownOption(String),
    #[error("mount option \"{option}\": {why}")]
    BadOption { option: String, why: &'static str },
    #[error("there is no /dev/fuse on this machine (load the fuse module, or give the container the device)")]
    NoDevice,
    #[error("fusermount3 was not found (install the package fuse3)")]
    NoFusermount,
    #[error("the mountpoint {path}: {source}")]
    Mountpoint { path: PathBuf, source: io::Error },
    #[error("fusermount3 refused: {0}")]
    Fusermount(String),
    #[error("still in use: {0}")]
    Busy(PathBuf),
    #[error("{what}: {source}")]
    Io { what: &'static str, source: io::Error },
}
