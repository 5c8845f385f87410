//! The home folder of one drive on one machine.
//!
//! ```text
//!   home/            0700
//!     keyfile        generation secret, store keys and keyring, sealed by the passphrase (content's keyfile format)
//!     config         JSON, no secrets: drive name, providers, policy, limits
//!     lock           flock'd by whoever uses the store; holds the pid for messages
//!     log/  index/   the store's          pieces/  the sealed pieces' (fs)
//!     control.sock   while mounted        daemon.pid, daemon.log
//! ```
//!
//! Owns: the layout, `config`, `lock`, making and opening a home. Promises: nothing here shows a name or a plaintext of
//! the drive; files are replaced atomically (write, fsync, rename, fsync of the folder); one process at a time uses a
//! home. Refuses: a home of a newer format, an existing home at `init`, a home that is half made.
//!
//! The bytes are described in fs/format/home.md.

mod config;
mod error;
pub(crate) mod files;
mod keys;
mod lock;
pub mod mountpoint;
pub mod passphrase;
mod provider_addr;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub use config::{CONFIG_VERSION, Config, Limits, Policy, SURVIVE_LOSSES_MAX};
pub use error::HomeError;
pub use files::{create_private_dir, read_limited, sync_dir, write_atomically};
pub use keys::{Recovered, Unlocked};
pub use lock::LockGuard;
pub use passphrase::Passphrase;
pub use provider_addr::{ProviderAddr, ProviderAddrError};

/// A home folder whose configuration was read.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    config: Config,
    lock: Option<LockGuard>,
}

impl Home {
    /// Reads the configuration; takes no lock, asks for no passphrase.
    pub fn open(path: &Path) -> Result<Home, HomeError> {
        let path = path.canonicalize().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => HomeError::Missing(path.to_owned()),
            _ => HomeError::io("open", path, error),
        })?;
        for name in [KEYFILE, CONFIG] {
            let file = path.join(name);
            // What may not be looked at is not missing.
            if !file.try_exists().or_else(|error| not_a_folder(error, &file))? {
                return Err(HomeError::Missing(path));
            }
        }
        let config = Config::read(&path.join(CONFIG))?;
        Ok(Home { path, config, lock: None })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Changes the configuration on disk. The lock must be held, so that two writers cannot undo each other.
    pub fn change_config(&mut self, change: impl FnOnce(&mut Config)) -> Result<(), HomeError> {
        if self.lock.is_none() {
            return Err(HomeError::NotLocked(self.path.clone()));
        }
        let mut config = self.config.clone();
        change(&mut config);
        if config != self.config {
            config.write(&self.path.join(CONFIG))?;
            self.config = config;
        }
        Ok(())
    }

    /// Takes the home for this process, until the `Home` is dropped.
    pub fn lock(&mut self) -> Result<(), HomeError> {
        if self.lock.is_none() {
            self.lock = Some(LockGuard::take(&self.path.join("lock"))?);
            // Another process may have changed it before the lock was ours.
            self.config = Config::read(&self.path.join(CONFIG))?;
        }
        Ok(())
    }

    /// [`Home::lock`] for who mounts: `umount` returns before the daemon has closed everything, and a drive that is mounted
    /// again at once must not meet its own past. Waits, `patience` at most, while the home is held and the drive is not
    /// mounted where it was last; `waiting` is told the holder after a second.
    pub fn lock_after_unmount(
        &mut self,
        patience: Duration,
        mut waiting: impl FnMut(u32),
    ) -> Result<(), HomeError> {
        let (start, mut told) = (Instant::now(), false);
        loop {
            let Err(error) = self.lock() else { return Ok(()) };
            let HomeError::InUse { pid, .. } = error else { return Err(error) };
            let mounted = self.config.mountpoint.as_deref().is_some_and(mountpoint::is_ours);
            if mounted || start.elapsed() > patience {
                return Err(error);
            }
            if !told && start.elapsed() > Duration::from_secs(1) {
                told = true;
                waiting(pid);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn socket_path(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    pub fn log_path(&self) -> PathBuf {
        self.path.join("daemon.log")
    }

    pub fn pid_path(&self) -> PathBuf {
        self.path.join("daemon.pid")
    }
}

fn not_a_folder(error: std::io::Error, path: &Path) -> Result<bool, HomeError> {
    match error.kind() {
        std::io::ErrorKind::NotADirectory => Ok(false),
        _ => Err(HomeError::io("open", path, error)),
    }
}

const KEYFILE: &str = "keyfile";
const CONFIG: &str = "config";
