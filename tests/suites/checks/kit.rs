//! What checks share: calls that std lacks, refusals by number, acting as somebody else.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// The result of a system call: -1 becomes errno.
pub fn call(result: impl Into<i64>) -> io::Result<i64> {
    let result = result.into();
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

/// The call must fail with this errno.
pub fn refused<T>(what: &str, result: io::Result<T>, errno: i32) -> Result<()> {
    match result {
        Ok(_) => bail!("{what} succeeded; expected {}", io::Error::from_raw_os_error(errno)),
        Err(error) if error.raw_os_error() == Some(errno) => Ok(()),
        Err(error) => bail!("{what}: {error}; expected {}", io::Error::from_raw_os_error(errno)),
    }
}

/// Both must be equal.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<()> {
    if found == expected { Ok(()) } else { bail!("{what}: {found:?}, expected {expected:?}") }
}

/// Says why a check cannot run here.
pub fn skip(why: &str) -> Result<()> {
    println!("skipped: {why}");
    Ok(())
}

/// The whole file, through a descriptor.
pub fn bytes_of(file: &File) -> Result<Vec<u8>> {
    let size = usize::try_from(file.metadata()?.len())?;
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

pub fn seek(file: &File, from: i64, whence: i32) -> io::Result<u64> {
    // SAFETY: a descriptor and two numbers.
    call(unsafe { libc::lseek(file.as_raw_fd(), from, whence) }).map(|at| at as u64)
}

pub fn allocate(file: &File, mode: i32, from: i64, len: i64) -> io::Result<()> {
    // SAFETY: a descriptor and three numbers.
    call(unsafe { libc::fallocate(file.as_raw_fd(), mode, from, len) }).map(drop)
}

pub fn rename2(from: &Path, to: &Path, flags: u32) -> io::Result<()> {
    let (from, to) = (c_path(from), c_path(to));
    // SAFETY: both strings end in NUL and live until the call returns.
    call(unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) })
        .map(drop)
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8], flags: i32) -> io::Result<()> {
    let (path, name) = (c_path(path), CString::new(name)?);
    // SAFETY: strings end in NUL; the value is as long as is said.
    let done =
        unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags) };
    call(done).map(drop)
}

pub fn get_xattr(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let (path, name) = (c_path(path), CString::new(name)?);
    let mut value = vec![0u8; 65_536];
    // SAFETY: strings end in NUL; the buffer is as long as is said.
    let len =
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(call(len as i64)? as usize);
    Ok(value)
}

pub fn remove_xattr(path: &Path, name: &str) -> io::Result<i64> {
    let (path, name) = (c_path(path), CString::new(name)?);
    // SAFETY: strings end in NUL.
    call(unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) })
}

pub fn list_xattrs(path: &Path) -> io::Result<Vec<String>> {
    let path = c_path(path);
    let mut list = vec![0u8; 65_536];
    // SAFETY: the string ends in NUL; the buffer is as long as is said.
    let len = unsafe { libc::llistxattr(path.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    list.truncate(call(len as i64)? as usize);
    let names = list.split(|b| *b == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

/// (seconds, nanoseconds) of mtime and ctime.
pub fn changed(path: &Path) -> Result<((i64, i64), (i64, i64))> {
    let meta = path.symlink_metadata().with_context(|| format!("{}", path.display()))?;
    Ok(((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec())))
}

/// Longer than a tick of any clock that times of files come from.
pub fn tick() {
    std::thread::sleep(std::time::Duration::from_millis(25));
}

/// Runs `f` on a thread that is another user, with the groups given (the first is the primary one). Root only.
pub fn as_user<T: Send>(uid: u32, groups: &[u32], f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let run = move || {
            let gid = groups.first().copied().unwrap_or(uid);
            // The system calls themselves: the C library's wrappers would change every thread of the process.
            // SAFETY: numbers, and a list that is as long as is said.
            unsafe {
                call(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
                call(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
                call(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
            }
            f()
        };
        match scope.spawn(run).join() {
            Ok(result) => result,
            Err(_) => bail!("the other user panicked"),
        }
    })
}
