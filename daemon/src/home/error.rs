//! Why a home folder cannot be used.

use std::{
    io,
    path::{Path, PathBuf},
};

#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error("there is no drive in {}", .0.display())]
    Missing(PathBuf),
    #[error("there is a drive in {} already", .0.display())]
    Exists(PathBuf),
    #[error("{} is not empty and is not a drive's home folder", .0.display())]
    NotEmpty(PathBuf),
    #[error("the drive in {} is in use by process {pid}", .path.display())]
    InUse { path: PathBuf, pid: u32 },
    #[error("the lock of {} is not held", .0.display())]
    NotLocked(PathBuf),
    #[error("the passphrase is wrong, or the keyfile is damaged")]
    WrongPassphrase,
    #[error("{} was written by a newer Holdfast (format {found}, this one knows up to {known})", .path.display())]
    NewerFormat { path: PathBuf, found: u64, known: u64 },
    #[error("{} is damaged: {reason}", .path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("no permission to {action} {}", .path.display())]
    Permission { action: &'static str, path: PathBuf },
    #[error("the disk is full: cannot {action} {}", .path.display())]
    NoSpace { action: &'static str, path: PathBuf },
    #[error("cannot {action} {}: {source}", .path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{0}")]
    Keys(String),
}

impl HomeError {
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> HomeError {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => HomeError::Permission { action, path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => HomeError::NoSpace { action, path },
            _ => HomeError::Io { action, path, source },
        }
    }
}
