//! Room for what frees room: on a full disk a release must be written down before its slot may go.

use std::fs::File;
use std::io::{ErrorKind, Result, Write};
use std::path::{Path, PathBuf};

use super::disk;

/// Some rows of the greatest length, and what the file system needs for them.
const BALLAST_BYTES: usize = 1 << 20;

/// A file of no use but its room.
pub(super) struct Ballast {
    dir: PathBuf,
    path: PathBuf,
}

impl Ballast {
    pub(super) fn new(dir: &Path) -> Ballast {
        Ballast { dir: dir.to_path_buf(), path: dir.join("ballast") }
    }

    /// Makes it where it is not there, or not whole.
    pub(super) fn keep(&self) -> Result<()> {
        if std::fs::metadata(&self.path).is_ok_and(|found| found.len() == BALLAST_BYTES as u64) {
            return Ok(());
        }
        let write = || {
            // Zeros would take no room where files are compressed.
            let mut bytes = vec![0; BALLAST_BYTES];
            blake3::Hasher::new().finalize_xof().fill(&mut bytes);
            let mut file = File::create(&self.path)?;
            file.write_all(&bytes)?;
            file.sync_all()
        };
        write().inspect_err(|_| {
            // What there was room for is room that others need.
            let _ = disk::remove(&self.path);
        })
    }

    /// Gives its room up. `false`: it had been given up before.
    pub(super) fn give_up(&self) -> Result<bool> {
        match std::fs::remove_file(&self.path) {
            Ok(()) => disk::sync_dir(&self.dir).map(|()| true),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_is_whole_or_absent() {
        let dir = tempfile::tempdir().unwrap();
        let ballast = Ballast::new(dir.path());
        assert!(!ballast.give_up().unwrap());
        ballast.keep().unwrap();
        let path = dir.path().join("ballast");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), BALLAST_BYTES as u64);
        std::fs::write(&path, b"cut short").unwrap();
        ballast.keep().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), BALLAST_BYTES as u64);
        assert!(ballast.give_up().unwrap());
        assert!(!path.exists());
    }
}
