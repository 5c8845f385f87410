//! One process at a time uses a home: a `flock` that the kernel releases when the process ends, however it ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::HomeError;

/// Held until it is dropped.
#[derive(Debug)]
pub struct LockGuard {
    _file: File,
}

impl LockGuard {
    /// Does not wait.
    pub fn take(path: &Path) -> Result<LockGuard, HomeError> {
        let failed = |error| HomeError::io("lock", path, error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = (&mut file).take(20).read_to_string(&mut text);
                let path = path.parent().unwrap_or(path).to_owned();
                return Err(HomeError::InUse { path, pid: text.trim().parse().unwrap_or(0) });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // The pid is for messages only; the lock is what counts. It stands where the one before stood, since a full disk may have no other room, and
        // where it cannot be written it is missed by nobody.
        let _ = file.seek(SeekFrom::Start(0)).and_then(|_| writeln!(file, "{:<10}", std::process::id()));
        Ok(LockGuard { _file: file })
    }
}
