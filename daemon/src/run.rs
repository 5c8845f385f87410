//! The seam between the commands and the drive: what `drive::run` is given.

use std::{net::SocketAddr, path::PathBuf};

use holdfast_fs::fuse::MountOptions;
use tokio_util::sync::CancellationToken;

use crate::home::{Home, Unlocked};

/// Everything that a drive needs to run until it is unmounted.
pub struct RunOptions {
    /// Its lock is held.
    pub home: Home,
    pub unlocked: Unlocked,
    /// Checked, empty, canonical.
    pub mountpoint: PathBuf,
    /// What stood after `-o`.
    pub mount_options: MountOptions,
    /// Where its metrics are offered.
    pub metrics: Option<SocketAddr>,
    /// Called once, when a program may write to the mountpoint.
    pub ready: Box<dyn FnOnce() + Send>,
    /// Cancelled by SIGTERM, SIGINT and SIGHUP: unmount (lazily if it must be), keep everything, return.
    pub shutdown: CancellationToken,
}
