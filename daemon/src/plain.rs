//! Public data on this machine's disk: folders become plain UnixFS DAGs and CAR files, and DAGs become folders again.
//!
//! Owns the reading and writing of files around `holdfast_content::plain`, which knows no disk. Promises: what a command makes
//! appears under its name in one step, whole and synced, or not at all; a DAG or CAR of a stranger's writes only below the name
//! that was given, and no more than fits the disk. Needs no drive.
//!
//! - `add`: a file, folder or link of the disk is added.
//! - `write`: a DAG is written to the disk.
//! - `begun`: what a fetch that was interrupted has written, until it is gone on with.
//! - `car`: `holdfast export` and `holdfast import`.

pub mod add;
pub mod begun;
pub mod car;
pub mod write;

use std::io;
use std::path::{Path, PathBuf};

use holdfast_content::plain::PlainError;
use holdfast_content::plain::car::CarFileError;
use serde::Serialize;

/// What was read or written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    pub files: u64,
    pub folders: u64,
    pub links: u64,
    /// Of all files.
    pub bytes: u64,
}

/// Why a folder could not be added, or a DAG not be written.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("cannot {op} {}: {source}", .path.display())]
    Io {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is neither a file nor a folder nor a link", .0.display())]
    Special(PathBuf),
    #[error("{} has a name that is no UTF-8, which IPFS has no word for", .0.display())]
    NotUtf8(PathBuf),
    #[error("{} is what is being written, and lies within what is read", .0.display())]
    Itself(PathBuf),
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    #[error("another `holdfast get` is writing to {}", .0.display())]
    Busy(PathBuf),
    #[error("{} is somebody else's", .0.display())]
    Foreign(PathBuf),
    #[error("{}: {source}", .path.display())]
    Car {
        path: PathBuf,
        #[source]
        source: CarFileError,
    },
    #[error("{}: {why}", .path.display())]
    Roots { path: PathBuf, why: String },
    #[error("{}: {source}", .path.display())]
    Dag {
        path: PathBuf,
        #[source]
        source: PlainError,
    },
    #[error("it has more {what} than {max}")]
    Limit { what: &'static str, max: u64 },
}

impl TreeError {
    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TreeError {
        let path = path.to_owned();
        move |source| TreeError::Io { op, path, source }
    }

    pub(crate) fn dag(path: &Path) -> impl FnOnce(PlainError) -> TreeError {
        let path = path.to_owned();
        move |source| match source {
            // What took the bytes has its own words.
            PlainError::Other(error) => match error.downcast::<TreeError>() {
                Ok(own) => *own,
                Err(error) => TreeError::Dag { path, source: PlainError::Other(error) },
            },
            source => TreeError::Dag { path, source },
        }
    }
}

/// A sentence about entries that were left out since their names begin with a dot; nothing when there are none.
pub fn hidden_words(left_out: u64) -> String {
    match left_out {
        0 => String::new(),
        1 => "1 hidden entry was left out, as `ipfs add` does; --hidden takes it along.\n".to_owned(),
        n => format!("{n} hidden entries were left out, as `ipfs add` does; --hidden takes them along.\n"),
    }
}

/// Tells how many bytes are done.
pub type Done<'a> = dyn FnMut(u64) + 'a;

/// The folder that a new name goes into, and a name in it that nothing has.
pub(crate) fn beside(path: &Path) -> (PathBuf, PathBuf) {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let temporary = folder.join(format!(".holdfast-{}-{number}.part", std::process::id()));
    (folder.to_owned(), temporary)
}

/// Gives what was made its name, if nothing has it.
pub(crate) fn appear(temporary: &Path, path: &Path, folder: &Path) -> Result<(), TreeError> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    match renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => {}
        Err(nix::errno::Errno::EEXIST) => return Err(TreeError::Exists(path.to_owned())),
        // File systems that cannot: a look before the step is the best that there is.
        Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOSYS) => {
            if path.symlink_metadata().is_ok() {
                return Err(TreeError::Exists(path.to_owned()));
            }
            std::fs::rename(temporary, path).map_err(TreeError::io("rename to", path))?;
        }
        Err(error) => return Err(TreeError::io("rename to", path)(error.into())),
    }
    let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(TreeError::io("sync", folder))
}

#[cfg(test)]
mod tests;
