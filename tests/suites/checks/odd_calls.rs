//! Calls that are unusual or wrong, and what the native disk answers to them: every one has to be answered the same.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Result, bail};

use super::kit::{allocate, c_path, call, get_xattr, remove_xattr, rename2, seek, set_xattr};

/// In a folder with the files `f` (10,000 bytes) and `g` (empty), the folders `d` (empty) and `full` (with a file), and the links `l` (to `f`) and `dangling`.
type Call = fn(&Path) -> io::Result<i64>;

fn open(path: &Path, flags: i32) -> io::Result<File> {
    let path = c_path(path);
    // SAFETY: the string ends in NUL; a descriptor that came is ours.
    unsafe { Ok(File::from_raw_fd(call(libc::open(path.as_ptr(), flags, 0o644))? as i32)) }
}

fn writing(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn done(result: io::Result<()>) -> io::Result<i64> {
    result.map(|()| 0)
}

fn opened(path: &Path, flags: i32) -> io::Result<i64> {
    open(path, flags).map(|_| 0)
}

fn name(bytes: usize) -> String {
    "n".repeat(bytes)
}

fn truncate(path: &Path, len: i64) -> io::Result<i64> {
    let path = c_path(path);
    // SAFETY: the string ends in NUL.
    call(unsafe { libc::truncate(path.as_ptr(), len) })
}

fn ftruncate(file: &File, len: i64) -> io::Result<i64> {
    // SAFETY: a descriptor and a number.
    call(unsafe { libc::ftruncate(file.as_raw_fd(), len) })
}

fn copy(from: &File, at: i64, to: &File, off: i64, len: usize, flags: u32) -> io::Result<i64> {
    let (mut at, mut off) = (at, off);
    // SAFETY: descriptors, and offsets that live until the call returns.
    call(unsafe { libc::copy_file_range(from.as_raw_fd(), &mut at, to.as_raw_fd(), &mut off, len, flags) }
        as i64)
}

fn mknod(path: &Path, mode: u32) -> io::Result<i64> {
    let path = c_path(path);
    // SAFETY: the string ends in NUL.
    call(unsafe { libc::mknod(path.as_ptr(), mode, 0) })
}

fn utimens(path: &Path, nanos: [i64; 2], flags: i32) -> io::Result<i64> {
    let path = c_path(path);
    let times = nanos.map(|tv_nsec| libc::timespec { tv_sec: 5, tv_nsec });
    // SAFETY: the string ends in NUL; two times.
    call(unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), flags) })
}

fn chmod_link(path: &Path) -> io::Result<i64> {
    let path = c_path(path);
    // SAFETY: the string ends in NUL.
    call(unsafe { libc::fchmodat(libc::AT_FDCWD, path.as_ptr(), 0o600, libc::AT_SYMLINK_NOFOLLOW) })
}

fn sizes(path: &Path, name: &str, len: usize) -> io::Result<i64> {
    let (path, name) = (c_path(path), CString::new(name)?);
    let mut value = vec![0u8; len];
    // SAFETY: strings end in NUL; the buffer is as long as is said.
    call(unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), len) } as i64)
}

/// `st_mode`, links, size and what statx says that it knows.
fn statx(path: &Path, flags: i32) -> io::Result<i64> {
    let path = c_path(path);
    // SAFETY: all zeros are a statx; the string ends in NUL.
    unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        call(libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, libc::STATX_BASIC_STATS, &mut found))?;
        Ok(i64::from(found.stx_mask & libc::STATX_BASIC_STATS) << 32 | i64::from(found.stx_mode))
    }
}

fn names_in(dir: &File) -> io::Result<i64> {
    let mut buffer = [0u8; 4096];
    // SAFETY: the buffer is as long as is said.
    let got =
        unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) };
    call(got).map(|_| 0)
}

fn locked(path: &Path) -> io::Result<i64> {
    let (one, two) = (writing(path)?, writing(path)?);
    // SAFETY: descriptors and flags.
    unsafe {
        call(libc::flock(one.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB))?;
        call(libc::flock(two.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB))
    }
}

const NAMES: &[(&str, Call)] = &[
    ("open of nothing", |at| opened(&at.join("none"), libc::O_RDONLY)),
    ("open below a file", |at| opened(&at.join("f/x"), libc::O_RDONLY)),
    ("open of a file with a slash", |at| opened(&at.join("f/"), libc::O_RDONLY)),
    ("create with a slash", |at| opened(&at.join("new/"), libc::O_CREAT | libc::O_WRONLY)),
    ("O_EXCL over a dangling link", |at| {
        opened(&at.join("dangling"), libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY)
    }),
    ("O_CREAT through a dangling link", |at| opened(&at.join("dangling"), libc::O_CREAT | libc::O_WRONLY)),
    ("O_NOFOLLOW of a link", |at| opened(&at.join("l"), libc::O_NOFOLLOW)),
    ("O_DIRECTORY of a file", |at| opened(&at.join("f"), libc::O_DIRECTORY)),
    ("O_CREAT of a folder", |at| opened(&at.join("d"), libc::O_CREAT | libc::O_RDWR)),
    ("O_CREAT|O_DIRECTORY", |at| opened(&at.join("new"), libc::O_CREAT | libc::O_DIRECTORY)),
    ("writing a folder", |at| opened(&at.join("d"), libc::O_WRONLY)),
    ("O_TRUNC of a folder", |at| opened(&at.join("d"), libc::O_TRUNC)),
    ("O_TRUNC for reading", |at| {
        opened(&at.join("f"), libc::O_TRUNC).and(Ok(at.join("f").metadata()?.size() as i64))
    }),
    ("O_PATH of a link", |at| opened(&at.join("l"), libc::O_PATH | libc::O_NOFOLLOW)),
    ("a name of 255", |at| opened(&at.join(name(255)), libc::O_CREAT | libc::O_WRONLY)),
    ("a name of 256", |at| opened(&at.join(name(256)), libc::O_CREAT | libc::O_WRONLY)),
    ("look-up of 256", |at| opened(&at.join(name(256)), libc::O_RDONLY)),
    ("a folder of 256", |at| done(fs::create_dir(at.join(name(256))))),
    ("a link of 256", |at| done(symlink("f", at.join(name(256))))),
    ("renamed to 256", |at| done(fs::rename(at.join("f"), at.join(name(256))))),
    ("a target of 4095", |at| done(symlink(name(4095), at.join("new")))),
    ("a target of 4096", |at| done(symlink(name(4096), at.join("new")))),
    ("an empty target", |at| done(symlink("", at.join("new")))),
    ("mkdir over a file", |at| done(fs::create_dir(at.join("f")))),
    ("mkdir over a dangling link", |at| done(fs::create_dir(at.join("dangling")))),
    ("mkdir of .", |at| done(fs::create_dir(at.join("d/.")))),
    ("rmdir of .", |at| done(fs::remove_dir(at.join("d/.")))),
    ("rmdir of ..", |at| done(fs::remove_dir(at.join("d/..")))),
    ("rmdir of a file", |at| done(fs::remove_dir(at.join("f")))),
    ("rmdir of a full folder", |at| done(fs::remove_dir(at.join("full")))),
    ("unlink of a folder", |at| done(fs::remove_file(at.join("d")))),
    ("unlink with a slash", |at| done(fs::remove_file(at.join("f/")))),
    ("link of a folder", |at| done(fs::hard_link(at.join("d"), at.join("new")))),
    ("link over a name", |at| done(fs::hard_link(at.join("f"), at.join("g")))),
    ("link below a file", |at| done(fs::hard_link(at.join("f"), at.join("g/x")))),
    ("rename into itself", |at| done(fs::rename(at.join("d"), at.join("d/x")))),
    ("rename far into itself", |at| {
        fs::create_dir(at.join("d/e"))?;
        done(fs::rename(at.join("d"), at.join("d/e/x")))
    }),
    ("rename over its parent", |at| done(fs::rename(at.join("full/x"), at.join("full")))),
    ("rename to itself", |at| done(fs::rename(at.join("f"), at.join("f")))),
    ("rename of .", |at| done(fs::rename(at.join("d/."), at.join("new")))),
    ("rename over another name of it", |at| {
        fs::hard_link(at.join("f"), at.join("h"))?;
        fs::rename(at.join("f"), at.join("h"))?;
        Ok(at.join("f").metadata()?.nlink() as i64)
    }),
    ("rename of a file over a folder", |at| done(fs::rename(at.join("f"), at.join("d")))),
    ("rename of a folder over a file", |at| done(fs::rename(at.join("d"), at.join("f")))),
    ("rename over a full folder", |at| done(fs::rename(at.join("d"), at.join("full")))),
    ("rename of a file with a slash", |at| done(fs::rename(at.join("f"), at.join("new/")))),
    ("rename of nothing", |at| done(fs::rename(at.join("none"), at.join("f")))),
    ("exchange with nothing", |at| done(rename2(&at.join("f"), &at.join("none"), libc::RENAME_EXCHANGE))),
    ("exchange of a folder and its child", |at| {
        done(rename2(&at.join("full"), &at.join("full/x"), libc::RENAME_EXCHANGE))
    }),
    ("exchange with itself", |at| done(rename2(&at.join("f"), &at.join("f"), libc::RENAME_EXCHANGE))),
    ("exchange of a file and a folder", |at| {
        rename2(&at.join("f"), &at.join("d"), libc::RENAME_EXCHANGE)?;
        Ok(at.join("f").metadata()?.is_dir().into())
    }),
    ("no replacement of itself", |at| done(rename2(&at.join("f"), &at.join("f"), libc::RENAME_NOREPLACE))),
    ("two rename flags", |at| {
        done(rename2(&at.join("f"), &at.join("g"), libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE))
    }),
    ("a whiteout without replacement", |at| {
        done(rename2(&at.join("f"), &at.join("g"), libc::RENAME_NOREPLACE | libc::RENAME_WHITEOUT))
    }),
    ("a whiteout where another name of it is", |at| {
        fs::hard_link(at.join("f"), at.join("h"))?;
        rename2(&at.join("f"), &at.join("h"), libc::RENAME_WHITEOUT)?;
        Ok(at.join("f").metadata()?.nlink() as i64)
    }),
    ("a whiteout of a folder", |at| {
        rename2(&at.join("d"), &at.join("new"), libc::RENAME_WHITEOUT)?;
        Ok(i64::from(at.join("d").symlink_metadata()?.mode()) << 8 | at.metadata()?.nlink() as i64)
    }),
    ("an unknown rename flag", |at| done(rename2(&at.join("f"), &at.join("g"), 1 << 7))),
    ("a socket, opened", |at| {
        let _socket = UnixListener::bind(at.join("s"))?;
        opened(&at.join("s"), libc::O_RDONLY)
    }),
    ("a fifo that nobody reads", |at| {
        mknod(&at.join("p"), libc::S_IFIFO | 0o600)?;
        opened(&at.join("p"), libc::O_WRONLY | libc::O_NONBLOCK)
    }),
    ("mknod of a folder", |at| mknod(&at.join("new"), libc::S_IFDIR | 0o600)),
    ("mknod of a link", |at| mknod(&at.join("new"), libc::S_IFLNK | 0o600)),
    ("mknod without a kind", |at| {
        mknod(&at.join("new"), 0o600).and(Ok(at.join("new").metadata()?.mode().into()))
    }),
    ("mknod over a name", |at| mknod(&at.join("f"), libc::S_IFREG | 0o600)),
    ("names of a removed folder", |at| {
        let folder = File::open(at.join("d"))?;
        fs::remove_dir(at.join("d"))?;
        names_in(&folder)
    }),
    ("names of a file", |at| names_in(&File::open(at.join("f"))?)),
    ("names of a folder", |at| names_in(&File::open(at.join("full"))?)),
    ("a seek far into a folder", |at| {
        seek(&File::open(at.join("full"))?, i64::MAX, libc::SEEK_SET).map(|_| 0)
    }),
    ("read of a folder", |at| File::open(at.join("d"))?.read_at(&mut [0; 9], 0).map(|n| n as i64)),
];

const CONTENTS: &[(&str, Call)] = &[
    ("truncate of a folder", |at| truncate(&at.join("d"), 0)),
    ("truncate to less than nothing", |at| truncate(&at.join("f"), -1)),
    ("truncate of a fifo", |at| {
        mknod(&at.join("p"), libc::S_IFIFO | 0o600)?;
        truncate(&at.join("p"), 0)
    }),
    ("ftruncate for reading", |at| ftruncate(&File::open(at.join("f"))?, 5)),
    ("ftruncate of a folder", |at| ftruncate(&File::open(at.join("d"))?, 0)),
    ("truncate beyond the last offset", |at| truncate(&at.join("f"), i64::MAX)),
    ("write for reading", |at| File::open(at.join("f"))?.write_at(b"x", 0).map(|n| n as i64)),
    ("read for writing", |at| open(&at.join("f"), libc::O_WRONLY)?.read_at(&mut [0], 0).map(|n| n as i64)),
    ("write of nothing behind the end", |at| {
        let wrote = writing(&at.join("f"))?.write_at(b"", 50_000)?;
        Ok(wrote as i64 + at.join("f").metadata()?.size() as i64)
    }),
    ("read behind the end", |at| writing(&at.join("f"))?.read_at(&mut [0; 10], 10_000).map(|n| n as i64)),
    ("write below the beginning", |at| {
        let file = writing(&at.join("f"))?;
        // SAFETY: one byte.
        call(unsafe { libc::pwrite(file.as_raw_fd(), b"x".as_ptr().cast(), 1, -1) } as i64)
    }),
    ("pwrite with O_APPEND", |at| {
        OpenOptions::new().append(true).open(at.join("f"))?.write_at(b"x", 0)?;
        Ok(at.join("f").metadata()?.size() as i64)
    }),
    ("allocation of nothing", |at| done(allocate(&writing(&at.join("f"))?, 0, 0, 0))),
    ("allocation below the beginning", |at| done(allocate(&writing(&at.join("f"))?, 0, -1, 10))),
    ("allocation for reading", |at| done(allocate(&File::open(at.join("f"))?, 0, 0, 10))),
    ("allocation of a folder", |at| done(allocate(&File::open(at.join("d"))?, 0, 0, 10))),
    ("allocation beyond the last offset", |at| done(allocate(&writing(&at.join("f"))?, 0, i64::MAX - 9, 5))),
    ("a hole that changes the size", |at| {
        done(allocate(&writing(&at.join("f"))?, libc::FALLOC_FL_PUNCH_HOLE, 0, 10))
    }),
    ("a hole behind the end", |at| {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        allocate(&writing(&at.join("f"))?, mode, 50_000, 10)?;
        Ok(at.join("f").metadata()?.size() as i64)
    }),
    ("room behind the end", |at| {
        allocate(&writing(&at.join("f"))?, libc::FALLOC_FL_KEEP_SIZE, 50_000, 10)?;
        Ok(at.join("f").metadata()?.size() as i64)
    }),
    ("zeros behind the end", |at| {
        allocate(&writing(&at.join("f"))?, libc::FALLOC_FL_ZERO_RANGE, 9_000, 10_000)?;
        Ok(at.join("f").metadata()?.size() as i64)
    }),
    ("zeros and a hole", |at| {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
        done(allocate(&writing(&at.join("f"))?, mode, 0, 10))
    }),
    ("seek to data at the end", |at| {
        seek(&File::open(at.join("f"))?, 10_000, libc::SEEK_DATA).map(|n| n as i64)
    }),
    ("seek to a hole at the end", |at| {
        seek(&File::open(at.join("f"))?, 10_000, libc::SEEK_HOLE).map(|n| n as i64)
    }),
    ("seek to data before the beginning", |at| {
        seek(&File::open(at.join("f"))?, -1, libc::SEEK_DATA).map(|n| n as i64)
    }),
    ("seek to a hole in an empty file", |at| {
        seek(&File::open(at.join("g"))?, 0, libc::SEEK_HOLE).map(|n| n as i64)
    }),
    ("seek to nowhere", |at| seek(&File::open(at.join("f"))?, 0, 99).map(|n| n as i64)),
    ("seek before the beginning", |at| {
        seek(&File::open(at.join("f"))?, -1, libc::SEEK_SET).map(|n| n as i64)
    }),
    ("copy onto itself, overlapping", |at| {
        let file = writing(&at.join("f"))?;
        copy(&file, 0, &file, 100, 1000, 0)
    }),
    ("copy within", |at| {
        let file = writing(&at.join("f"))?;
        copy(&file, 0, &file, 20_000, 1000, 0).and(Ok(file.metadata()?.size() as i64))
    }),
    ("copy with a flag", |at| copy(&writing(&at.join("f"))?, 0, &writing(&at.join("g"))?, 0, 10, 1)),
    ("copy of nothing", |at| copy(&writing(&at.join("f"))?, 0, &writing(&at.join("g"))?, 0, 0, 0)),
    ("copy from behind the end", |at| {
        copy(&writing(&at.join("f"))?, 20_000, &writing(&at.join("g"))?, 0, 10, 0)
    }),
    ("copy to who reads", |at| copy(&writing(&at.join("f"))?, 0, &File::open(at.join("g"))?, 0, 10, 0)),
    ("copy from a folder", |at| copy(&File::open(at.join("d"))?, 0, &writing(&at.join("g"))?, 0, 10, 0)),
    ("copy to O_APPEND", |at| {
        copy(&writing(&at.join("f"))?, 0, &open(&at.join("g"), libc::O_WRONLY | libc::O_APPEND)?, 0, 10, 0)
    }),
    ("copy to the last offset", |at| {
        copy(&writing(&at.join("f"))?, 0, &writing(&at.join("g"))?, i64::MAX - 5, 10, 0)
    }),
    ("sync of a fifo", |at| {
        mknod(&at.join("p"), libc::S_IFIFO | 0o600)?;
        done(open(&at.join("p"), libc::O_RDWR)?.sync_all())
    }),
    ("a lock that is taken", |at| locked(&at.join("f"))),
    ("direct read at the end", |at| {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(at.join("f"))?;
        let mut page = vec![0u8; 8192 + 4096];
        let from = page.as_ptr().align_offset(4096);
        file.read_at(&mut page[from..from + 8192], 8192).map(|n| n as i64)
    }),
    ("a mapping behind the end of an empty file", |at| {
        let file = writing(&at.join("g"))?;
        let access = libc::PROT_READ;
        // SAFETY: the mapping is not touched.
        let page =
            unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(0) }
    }),
];

const ATTRIBUTES: &[(&str, Call)] = &[
    ("chmod of a link", |at| chmod_link(&at.join("l"))),
    ("times of a link", |at| utimens(&at.join("l"), [1, 2], libc::AT_SYMLINK_NOFOLLOW)),
    ("times out of range", |at| utimens(&at.join("f"), [1_000_000_000, 0], 0)),
    ("times that stay", |at| utimens(&at.join("f"), [libc::UTIME_OMIT, libc::UTIME_OMIT], 0)),
    ("statx", |at| statx(&at.join("f"), 0)),
    ("statx of a link", |at| statx(&at.join("l"), libc::AT_SYMLINK_NOFOLLOW)),
    ("statx with wrong flags", |at| {
        statx(&at.join("f"), libc::AT_STATX_FORCE_SYNC | libc::AT_STATX_DONT_SYNC)
    }),
    ("an attribute without a namespace", |at| done(set_xattr(&at.join("f"), "a", b"b", 0))),
    ("an attribute of an unknown namespace", |at| done(set_xattr(&at.join("f"), "strange.a", b"b", 0))),
    ("an attribute without a name", |at| done(set_xattr(&at.join("f"), "", b"b", 0))),
    ("a namespace without a name", |at| done(set_xattr(&at.join("f"), "user.", b"b", 0))),
    ("no name, asked for", |at| sizes(&at.join("f"), "user.", 10)),
    ("an unknown namespace, asked for", |at| sizes(&at.join("f"), "strange.a", 10)),
    ("no namespace, taken away", |at| remove_xattr(&at.join("f"), "a")),
    ("no name, taken away", |at| remove_xattr(&at.join("f"), "trusted.")),
    ("a name of 256 bytes", |at| done(set_xattr(&at.join("f"), &format!("user.{}", name(251)), b"b", 0))),
    ("a name of 255 bytes", |at| done(set_xattr(&at.join("f"), &format!("user.{}", name(250)), b"b", 0))),
    ("a value that is too large", |at| done(set_xattr(&at.join("f"), "user.a", &[1; 65_537], 0))),
    ("an attribute created twice", |at| {
        set_xattr(&at.join("f"), "user.a", b"b", 0)?;
        done(set_xattr(&at.join("f"), "user.a", b"c", libc::XATTR_CREATE))
    }),
    ("an attribute replaced that is none", |at| {
        done(set_xattr(&at.join("f"), "user.a", b"c", libc::XATTR_REPLACE))
    }),
    ("two flags", |at| {
        done(set_xattr(&at.join("f"), "user.a", b"c", libc::XATTR_REPLACE | libc::XATTR_CREATE))
    }),
    ("an unknown flag", |at| done(set_xattr(&at.join("f"), "user.a", b"c", 9))),
    ("an empty value", |at| {
        set_xattr(&at.join("f"), "user.a", b"", 0)?;
        get_xattr(&at.join("f"), "user.a").map(|value| value.len() as i64)
    }),
    ("the size of a value", |at| {
        set_xattr(&at.join("f"), "user.a", b"1234", 0)?;
        sizes(&at.join("f"), "user.a", 0)
    }),
    ("too little room for a value", |at| {
        set_xattr(&at.join("f"), "user.a", b"1234", 0)?;
        sizes(&at.join("f"), "user.a", 3)
    }),
    ("an attribute that is none", |at| sizes(&at.join("f"), "user.a", 10)),
    ("a user's attribute of a link", |at| done(set_xattr(&at.join("l"), "user.a", b"b", 0))),
    ("a trusted attribute of a link", |at| done(set_xattr(&at.join("l"), "trusted.a", b"b", 0))),
    ("an attribute taken away that is none", |at| remove_xattr(&at.join("f"), "user.a")),
    ("an attribute taken away twice", |at| {
        set_xattr(&at.join("f"), "user.a", b"b", 0)?;
        remove_xattr(&at.join("f"), "user.a")?;
        remove_xattr(&at.join("f"), "user.a")
    }),
    ("an ACL that is none", |at| done(set_xattr(&at.join("f"), "system.posix_acl_access", b"nonsense", 0))),
    ("a default ACL of a file", |at| {
        done(set_xattr(&at.join("f"), "system.posix_acl_default", &[2, 0, 0, 0], 0))
    }),
];

fn prepare(at: &Path) -> Result<()> {
    fs::create_dir(at)?;
    fs::write(at.join("f"), [7; 10_000])?;
    fs::write(at.join("g"), b"")?;
    fs::create_dir(at.join("d"))?;
    fs::create_dir(at.join("full"))?;
    fs::write(at.join("full/x"), b"x")?;
    symlink("f", at.join("l"))?;
    Ok(symlink("nowhere", at.join("dangling"))?)
}

fn answers(dir: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (name, act) in [NAMES, CONTENTS, ATTRIBUTES].into_iter().flatten() {
        let at = dir.join("at");
        prepare(&at)?;
        let answer = match act(&at) {
            Ok(number) => number.to_string(),
            Err(error) => error.to_string(),
        };
        found.push(format!("{name}: {answer}"));
        fs::remove_dir_all(&at)?;
    }
    Ok(found)
}

pub fn beside_native(dir: &Path) -> Result<()> {
    let native = std::env::temp_dir().join(format!("holdfast-odd-{}", std::process::id()));
    fs::create_dir(&native)?;
    let (ours, theirs) = (answers(dir), answers(&native));
    fs::remove_dir_all(&native)?;
    let (ours, theirs) = (ours?, theirs?);
    let count = ours.len();
    let different: Vec<String> = ours
        .into_iter()
        .zip(theirs)
        .filter(|(ours, theirs)| ours != theirs)
        .map(|(ours, theirs)| format!("{ours}; native: {theirs}"))
        .collect();
    println!("{count} compared, {} different", different.len());
    if different.is_empty() {
        Ok(())
    } else {
        bail!("{} of {count}:\n{}", different.len(), different.join("\n"))
    }
}
