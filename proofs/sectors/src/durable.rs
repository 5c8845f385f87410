//! Files that survive a power cut: written beside, synced, renamed, the folder synced.
//!
//! Promises: after `replace` returns, the file holds the new bytes; before, the old ones; never a mixture.
//! What an interrupted writer leaves has a name that ends in `PARTIAL` and is removed by whoever starts again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

/// Ending of names that nobody may rely on.
pub(crate) const PARTIAL: &str = ".partial";
const READ_CHUNK: usize = 1 << 20;

/// The unfinished name beside a finished one.
pub(crate) fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PARTIAL);
    PathBuf::from(name)
}

/// Makes a folder's entries durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Puts bytes at a path, whole or not at all.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// As `replace`, for what nobody else may read.
pub(crate) fn replace_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_as(path, 0o600, |file| file.write_all(bytes))
}

/// As `replace`, for what is written in pieces.
pub(crate) fn write_with(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    write_as(path, 0o666, write)
}

fn write_as(path: &Path, mode: u32, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let beside = partial(path);
    // One that is left over may have another mode.
    remove(&beside)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    write(&mut file)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&beside, path)?;
    sync_dir(parent(path))
}

/// Installs a folder of finished files: every file synced, then renamed in one step.
pub(crate) fn install_dir(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        File::open(entry?.path())?.sync_all()?;
    }
    sync_dir(from)?;
    fs::rename(from, to)?;
    sync_dir(parent(to))
}

/// Removes a file or folder that may not be there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let gone = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match gone {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Feeds a whole file to a hash; its length.
pub(crate) fn digest_file(path: &Path, mut feed: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut chunk = vec![0; READ_CHUNK];
    let mut total = 0_u64;
    loop {
        let got = file.read(&mut chunk)?;
        let Some(bytes) = chunk.get(..got).filter(|bytes| !bytes.is_empty()) else { return Ok(total) };
        feed(bytes);
        total += got as u64;
    }
}

/// Length and SHA-256 of a file.
pub(crate) fn sha256_file(path: &Path) -> io::Result<(u64, [u8; 32])> {
    let mut hash = Sha256::new();
    let len = digest_file(path, |bytes| hash.update(bytes))?;
    Ok((len, hash.finalize().into()))
}

/// The sum that a file of ours in JSON carries of itself, over the value with an empty sum: on a disk that rots, a turned bit
/// must not pass for another number.
pub(crate) fn json_sum(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(hex(&Sha256::digest(serde_json::to_vec(value)?)))
}

/// Lower-case hexadecimal, as digests stand in stamps and reports.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing_is_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        replace(&path, b"old").unwrap();
        let failed = write_with(&path, |file| {
            file.write_all(b"ne")?;
            Err(io::Error::other("power"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(!partial(&path).exists());
    }

    #[test]
    fn folders_are_installed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a.partial"), dir.path().join("a"));
        fs::create_dir(&from).unwrap();
        fs::write(from.join("f"), b"abc").unwrap();
        install_dir(&from, &to).unwrap();
        let (len, digest) = sha256_file(&to.join("f")).unwrap();
        assert_eq!(len, 3);
        // FIPS 180-2, appendix B.1.
        assert_eq!(hex(&digest), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        remove(&to).unwrap();
        remove(&to).unwrap();
        assert!(!to.exists());
    }
}
