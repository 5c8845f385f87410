//! Setuid and setgid bits under every call that may take them away, beside the same on the native disk: each mode, each call, each kind of caller.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use anyhow::{Result, bail, ensure};

use super::kit::{allocate, as_user, c_path, call, set_xattr};

const OWNER: u32 = 65_534;
const STRANGER: u32 = 1;
const GROUP: u32 = 7;
const ELSEWHERE: u32 = 8;
/// CAP_FSETID.
const FSETID: u32 = 4;
const BYTES: usize = 8192;
/// So many differences are told.
const TOLD: usize = 20;

struct Who {
    name: &'static str,
    uid: u32,
    groups: &'static [u32],
    without_fsetid: bool,
}

const fn who(name: &'static str, uid: u32, groups: &'static [u32]) -> Who {
    Who { name, uid, groups, without_fsetid: false }
}

const CALLERS: [Who; 8] = [
    who("root", 0, &[0]),
    Who { name: "root without CAP_FSETID", uid: 0, groups: &[0], without_fsetid: true },
    Who { name: "root without CAP_FSETID, in the group", uid: 0, groups: &[0, GROUP], without_fsetid: true },
    who("the owner, of the group", OWNER, &[GROUP]),
    who("the owner, in the group", OWNER, &[ELSEWHERE, 9, GROUP]),
    who("the owner, outside of the group", OWNER, &[ELSEWHERE]),
    who("a stranger in the group", STRANGER, &[ELSEWHERE, GROUP]),
    who("a stranger", STRANGER, &[ELSEWHERE]),
];

/// What is done to a file that was opened before its mode was set.
struct Opened<'a> {
    path: &'a Path,
    file: &'a File,
    direct: &'a File,
    other: &'a File,
}

type Call = fn(&Opened) -> io::Result<()>;

const CALLS: [(&str, Call); 19] = [
    ("write", |at| (&*at.file).write_all(b"x")),
    ("pwrite of a page", |at| at.file.write_all_at(&[1; 4096], 4096)),
    ("direct write", |at| at.direct.write_all_at(&Page::default().0, 0)),
    ("mapped write", mapped),
    ("ftruncate to less", |at| at.file.set_len(5)),
    ("ftruncate to more", |at| at.file.set_len(50_000)),
    ("ftruncate to the same", |at| at.file.set_len(BYTES as u64)),
    ("truncate", |at| truncate(at.path, 7)),
    ("open with O_TRUNC", |at| OpenOptions::new().write(true).truncate(true).open(at.path).map(drop)),
    ("fallocate", |at| allocate(at.file, 0, 0, 20_000)),
    ("a hole", |at| allocate(at.file, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 0, 4096)),
    ("zeros", |at| allocate(at.file, libc::FALLOC_FL_ZERO_RANGE, 0, 4096)),
    ("copy_file_range", copy),
    ("chown to nobody else", |at| chown(at.path, None, None)),
    ("chown to its owner", |at| chown(at.path, Some(OWNER), Some(GROUP))),
    ("chgrp", |at| chown(at.path, None, Some(ELSEWHERE))),
    ("chmod", |at| fs::set_permissions(at.path, fs::Permissions::from_mode(0o6765))),
    ("setxattr", |at| set_xattr(at.path, "user.a", b"b", 0)),
    ("fsync", |at| at.file.sync_all()),
];

#[repr(align(4096))]
struct Page([u8; 4096]);

impl Default for Page {
    fn default() -> Self {
        Self([3; 4096])
    }
}

fn truncate(path: &Path, len: i64) -> io::Result<()> {
    let path = c_path(path);
    // SAFETY: the string ends in NUL and lives until the call returns.
    call(unsafe { libc::truncate(path.as_ptr(), len) }).map(drop)
}

fn mapped(at: &Opened) -> io::Result<()> {
    // SAFETY: the mapping is of the file's first page, which it has; it is written within and then taken away.
    unsafe {
        let (access, fd) = (libc::PROT_READ | libc::PROT_WRITE, at.file.as_raw_fd());
        let page = libc::mmap(std::ptr::null_mut(), 4096, access, libc::MAP_SHARED, fd, 0);
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        page.cast::<u8>().write(9);
        call(libc::msync(page, 4096, libc::MS_SYNC))?;
        call(libc::munmap(page, 4096)).map(drop)
    }
}

fn copy(at: &Opened) -> io::Result<()> {
    let (from, to) = (at.other.as_raw_fd(), at.file.as_raw_fd());
    let (mut read, mut write) = (0, 0);
    // SAFETY: descriptors, and offsets that live until the call returns.
    call(unsafe { libc::copy_file_range(from, &mut read, to, &mut write, 4096, 0) } as i64).map(drop)
}

/// Of the calling thread alone.
fn without_fsetid() -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let mut sets = [0u32; 6];
    // SAFETY: as the kernel has them: a header of two words, two sets of three.
    unsafe {
        call(libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()))?;
        sets[0] &= !(1 << FSETID);
        call(libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr())).map(drop)
    }
}

/// The mode as the kernel believes it, and as whoever keeps it says.
fn modes(file: &File) -> io::Result<(u32, u32)> {
    let believed = file.metadata()?.mode() & 0o7777;
    // SAFETY: all zeros are a statx; the empty path means the descriptor.
    let kept = unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_FORCE_SYNC;
        call(libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, libc::STATX_MODE, &mut found))?;
        u32::from(found.stx_mode) & 0o7777
    };
    Ok((believed, kept))
}

/// By a stranger: a request that says so comes before his writes as well, so that it cannot be refused as on the native disk, and takes the bits away.
const EXCEPTED: &str = "chown to nobody else";

/// What each call left of each mode, or the error that it gave.
fn outcomes(dir: &Path, caller: &Who) -> Result<Vec<String>> {
    let other = dir.join("other");
    fs::write(&other, [5; BYTES])?;
    let mut found = Vec::new();
    for (name, act) in &CALLS {
        if *name == EXCEPTED && caller.uid == STRANGER {
            continue;
        }
        for special in 0..8 {
            for group in [0, 1] {
                for rest in [0o707] {
                    let perm = special << 9 | group << 3 | rest;
                    let path = dir.join("f");
                    fs::write(&path, [1; BYTES])?;
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
                    chown(&path, Some(OWNER), Some(GROUP))?;
                    let (file, direct) = as_user(caller.uid, caller.groups, || {
                        let open =
                            |flags| OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path);
                        Ok((open(0)?, open(libc::O_DIRECT)?))
                    })?;
                    let other = File::open(&other)?;
                    fs::set_permissions(&path, fs::Permissions::from_mode(perm))?;
                    let at = Opened { path: &path, file: &file, direct: &direct, other: &other };
                    let done = as_user(caller.uid, caller.groups, || {
                        if caller.without_fsetid {
                            without_fsetid()?;
                        }
                        Ok(act(&at).map_err(|error| error.raw_os_error()))
                    })?;
                    let (believed, kept) = modes(&file)?;
                    found.push(format!(
                        "{}: {name}, {perm:04o}: {done:?}, {believed:04o} {kept:04o}",
                        caller.name
                    ));
                    fs::remove_file(&path)?;
                }
            }
        }
    }
    Ok(found)
}

pub fn beside_native(dir: &Path) -> Result<()> {
    let native = std::env::temp_dir().join(format!("holdfast-set-ids-{}", std::process::id()));
    fs::create_dir(&native)?;
    let compared = compare(dir, &native);
    fs::remove_dir_all(&native)?;
    compared
}

fn compare(dir: &Path, native: &Path) -> Result<()> {
    for at in [dir, native] {
        fs::set_permissions(at, fs::Permissions::from_mode(0o777))?;
    }
    let (mut count, mut different) = (0, Vec::new());
    for caller in &CALLERS {
        let (ours, theirs) = (outcomes(dir, caller)?, outcomes(native, caller)?);
        ensure!(ours.len() == theirs.len());
        count += ours.len();
        different.extend(ours.into_iter().zip(theirs).filter(|(ours, theirs)| ours != theirs));
    }
    println!("{count} compared, {} different", different.len());
    if different.is_empty() {
        return Ok(());
    }
    let told = different.iter().take(TOLD).map(|(ours, theirs)| format!("{ours}; native: {theirs}\n"));
    bail!("{} of {count} are different:\n{}", different.len(), told.collect::<String>())
}
