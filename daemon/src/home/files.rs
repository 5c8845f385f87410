//! Small files that are whole or absent after any crash, and private.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use super::HomeError;

/// Makes the folder (and its parents) with mode 0700; an existing one is left as it is.
pub fn create_private_dir(path: &Path) -> Result<(), HomeError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| HomeError::io("make the folder", path, error))
}

/// Replaces `path` by `bytes`, mode 0600: temporary file, fsync, rename, fsync of the folder.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
    let failed = |error| HomeError::io("write", path, error);
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed(std::io::ErrorKind::InvalidInput.into()));
    };
    let mut temporary = name.to_owned();
    temporary.push(".new");
    let temporary = folder.join(temporary);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(failed)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    drop(file);
    let renamed = written.and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = renamed {
        // The old file is untouched; what is left of the new one is of no use.
        let _ = fs::remove_file(&temporary);
        return Err(failed(error));
    }
    sync_dir(folder)
}

pub fn sync_dir(folder: &Path) -> Result<(), HomeError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(|error| HomeError::io("sync", folder, error))
}

/// Reads at most `bytes_max` bytes; a longer file is damaged.
pub fn read_limited(path: &Path, bytes_max: u64) -> Result<Vec<u8>, HomeError> {
    use std::io::Read;
    let failed = |error| HomeError::io("read", path, error);
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        let reason = format!("it is longer than {bytes_max} bytes");
        return Err(HomeError::Damaged { path: path.to_owned(), reason });
    }
    Ok(bytes)
}
