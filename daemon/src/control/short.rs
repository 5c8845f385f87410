//! Unix socket paths are limited to 107 bytes, home folders are not: a longer path is reached through
//! `/proc/self/fd/N/name`, N being the opened folder.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

/// `sun_path` holds 108 bytes with the final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

fn shorten(path: &Path) -> io::Result<(PathBuf, Option<File>)> {
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok((path.to_owned(), None));
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let folder = File::open(folder)?;
    Ok((Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name), Some(folder)))
}

pub fn bind(path: &Path) -> io::Result<tokio::net::UnixListener> {
    let (path, _folder) = shorten(path)?;
    tokio::net::UnixListener::bind(path)
}

pub fn connect(path: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    let (path, _folder) = shorten(path)?;
    std::os::unix::net::UnixStream::connect(path)
}
