//! The few things that a provider does to a folder, each of them durable or told not to be.

use std::fs::File;
use std::io::{ErrorKind, Read, Result, Write};
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

/// Prefix of files that are being written; deleted at start.
pub(super) const TMP_PREFIX: &str = ".tmp-";

/// Makes a folder and its name durable.
pub(super) fn make_dir(path: &Path) -> Result<()> {
    match std::fs::create_dir(path) {
        Ok(()) => {
            if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
                sync_dir(parent)?;
            }
            Ok(())
        }
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

/// Syncs a folder's names.
pub(super) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path)?.sync_all()
}

/// Writes a file so that after a crash it is the old one or the new one; durable on return.
pub(super) fn write_atomic(dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let tmp = dir.join(format!("{TMP_PREFIX}{name}"));
    let write = || -> Result<()> {
        let mut file = File::create(&tmp)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&tmp, dir.join(name))?;
        sync_dir(dir)
    };
    write().inspect_err(|_| {
        // What is left of it is deleted at the next start if not now.
        let _ = std::fs::remove_file(&tmp);
    })
}

/// Reads a file of at most so many bytes; a longer one is none that we wrote.
pub(super) fn read_limited(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(std::io::Error::new(ErrorKind::InvalidData, format!("longer than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// Removes a file; not being there is what was wanted.
pub(super) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Sets space aside without changing the file's length. File systems that cannot are taken at their word later.
pub(super) fn reserve(file: &File, len: u64) -> Result<()> {
    let len = i64::try_from(len).map_err(|_| std::io::Error::from(ErrorKind::InvalidInput))?;
    match fallocate(file.as_fd(), FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, len) {
        Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Bytes that this user may still write on the disk below a folder.
pub(super) fn free_bytes(dir: &Path) -> Result<u64> {
    let stat = nix::sys::statvfs::statvfs(dir)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// Names of the files in a folder, those being written apart: they are deleted.
pub(super) fn names(dir: &Path) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // Names that are no text are none of ours.
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with(TMP_PREFIX) {
            remove(&entry.path())?;
        } else {
            out.push(name);
        }
    }
    Ok(out)
}

/// Whether the disk (or a quota) is full.
pub(super) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// Whether the machine had too little of something else at that moment: descriptors, memory.
pub(super) fn is_exhausted(error: &std::io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EAGAIN))
}
