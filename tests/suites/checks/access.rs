//! Who may what: setuid, setgid, sticky, ACLs, special files; extended attributes; locks.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::kit::{
    allocate, as_user, c_path, call, get_xattr, list_xattrs, refused, remove_xattr, same, set_xattr, skip,
};

/// nobody, and another one.
const ONE: u32 = 65_534;
const OTHER: u32 = 1;

fn chmod(path: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

fn mode(path: &Path) -> Result<u32> {
    Ok(path.symlink_metadata()?.mode() & 0o7777)
}

/// The mode as the kernel believes it: `stat` asks for nothing else, so that nothing else makes the kernel ask us.
fn believed_mode(path: &Path) -> Result<u32> {
    let said = Command::new("stat").args(["-c", "%a"]).arg(path).output()?;
    Ok(u32::from_str_radix(String::from_utf8(said.stdout)?.trim(), 8)?)
}

pub fn kill_setuid(dir: &Path) -> Result<()> {
    let path = dir.join("f");
    let again = |perm: u32| -> Result<()> {
        fs::write(&path, vec![1; 10_000])?;
        chmod(&path, perm)
    };
    again(0o6777)?;
    OpenOptions::new().append(true).open(&path)?.write_all(b"root")?;
    same("after root wrote", mode(&path)?, 0o6777)?;
    let one = |what: &str, f: &(dyn Fn() -> Result<()> + Sync)| -> Result<()> {
        again(0o6777)?;
        as_user(ONE, &[ONE], f)?;
        same(&format!("believed after a stranger's {what}"), believed_mode(&path)?, 0o777)?;
        same(&format!("after a stranger's {what}"), mode(&path)?, 0o777)
    };
    one("write", &|| Ok(OpenOptions::new().append(true).open(&path)?.write_all(b"x")?))?;
    one("truncate", &|| Ok(OpenOptions::new().write(true).open(&path)?.set_len(5)?))?;
    one("O_TRUNC", &|| Ok(drop(File::create(&path)?)))?;
    one("fallocate", &|| Ok(allocate(&OpenOptions::new().write(true).open(&path)?, 0, 0, 20_000)?))?;
    // Without group execution, setgid means mandatory locking, and a member of the group might set it anew.
    again(0o2767)?;
    as_user(ONE, &[ONE, 0], || Ok(OpenOptions::new().append(true).open(&path)?.write_all(b"x")?))?;
    same("setgid without group execution", mode(&path)?, 0o2767)?;
    again(0o6755)?;
    chown(&path, Some(ONE), Some(ONE))?;
    same("after root's chown", mode(&path)?, 0o755)?;
    again(0o6755)?;
    chown(&path, None, None)?;
    same("after a chown to whom it belongs", (believed_mode(&path)?, mode(&path)?), (0o755, 0o755))?;
    let below = dir.join("d");
    fs::create_dir(&below)?;
    chmod(&below, 0o6755)?;
    chown(&below, Some(ONE), Some(ONE))?;
    same("a directory after chown", mode(&below)?, 0o6755)?;
    chown(&below, None, None)?;
    same("a directory after a chown to whom it belongs", mode(&below)?, 0o6755)
}

pub fn directories(dir: &Path) -> Result<()> {
    let shared = dir.join("shared");
    fs::create_dir(&shared)?;
    chown(&shared, Some(0), Some(OTHER))?;
    chmod(&shared, 0o3777)?;
    as_user(ONE, &[ONE], || {
        File::create(shared.join("f"))?;
        Ok(fs::create_dir(shared.join("d"))?)
    })?;
    let (file, sub) = (shared.join("f").metadata()?, shared.join("d").metadata()?);
    same("group handed down", (file.gid(), sub.gid()), (OTHER, OTHER))?;
    same("setgid handed down", (file.mode() & 0o2000, sub.mode() & 0o2000), (0, 0o2000))?;
    as_user(OTHER, &[OTHER], || {
        refused("a stranger's unlink in a sticky directory", fs::remove_file(shared.join("f")), libc::EPERM)?;
        refused("a stranger's rename", fs::rename(shared.join("f"), shared.join("g")), libc::EPERM)?;
        refused("a stranger's rmdir", fs::remove_dir(shared.join("d")), libc::EPERM)
    })?;
    as_user(ONE, &[ONE], || Ok(fs::remove_file(shared.join("f"))?))
}

pub fn foreign_group(dir: &Path) -> Result<()> {
    let path = dir.join("f");
    File::create(&path)?;
    chown(&path, Some(ONE), Some(OTHER))?;
    as_user(ONE, &[ONE], || chmod(&path, 0o2755))?;
    same("chmod by an owner outside the group", mode(&path)?, 0o755)?;
    as_user(ONE, &[ONE, OTHER], || chmod(&path, 0o2755))?;
    same("chmod by an owner in the group", mode(&path)?, 0o2755)?;
    // The same by way of an ACL.
    as_user(ONE, &[ONE, OTHER], || Ok(set_xattr(&path, "system.posix_acl_access", &acl(&[]), 0)?))?;
    same("setfacl by an owner in the group", mode(&path)? & 0o2000, 0o2000)?;
    as_user(ONE, &[ONE], || Ok(set_xattr(&path, "system.posix_acl_access", &acl(&[]), 0)?))?;
    same("setfacl by an owner outside the group", mode(&path)? & 0o2000, 0)?;
    let below = dir.join("d");
    fs::create_dir(&below)?;
    chown(&below, Some(ONE), Some(OTHER))?;
    chmod(&below, 0o2755)?;
    as_user(ONE, &[ONE], || Ok(set_xattr(&below, "system.posix_acl_access", &acl(&[]), 0)?))?;
    same("setfacl of a directory by an owner outside the group", mode(&below)? & 0o2000, 0)?;
    as_user(ONE, &[ONE], || {
        refused("chown to another user", chown(&path, Some(OTHER), None), libc::EPERM)?;
        refused("chgrp to a foreign group", chown(&path, None, Some(7)), libc::EPERM)
    })
}

/// An ACL as the kernel takes it: rwx for the owner, r-x for the group and others, and the users named with their bits.
fn acl(users: &[(u32, u16)]) -> Vec<u8> {
    let none = u32::MAX;
    let mut entries = vec![(1u16, 7u16, none)];
    entries.extend(users.iter().map(|(uid, bits)| (2, *bits, *uid)));
    entries.push((4, 5, none));
    entries.push((0x10, 7, none));
    entries.push((0x20, 5, none));
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, bits, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&bits.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

pub fn acls(dir: &Path) -> Result<()> {
    let path = dir.join("f");
    fs::write(&path, b"secret")?;
    chmod(&path, 0o600)?;
    as_user(ONE, &[ONE], || refused("a stranger's read", File::open(&path), libc::EACCES))?;
    set_xattr(&path, "system.posix_acl_access", &acl(&[(ONE, 4)]), 0)?;
    same("the mode that the ACL shows", mode(&path)?, 0o775)?;
    as_user(ONE, &[ONE], || {
        same("a named user's read", fs::read(&path)?, b"secret".to_vec())?;
        refused("a named user's write", OpenOptions::new().write(true).open(&path), libc::EACCES)
    })?;
    // The mask takes away what chmod takes from the group.
    chmod(&path, 0o700)?;
    as_user(ONE, &[ONE], || refused("a masked user's read", File::open(&path), libc::EACCES))?;
    ensure!(list_xattrs(&path)?.iter().any(|name| name == "system.posix_acl_access"), "the ACL is listed");
    // A default ACL takes the umask's place, and directories hand it down.
    let below = dir.join("d");
    fs::create_dir(&below)?;
    set_xattr(&below, "system.posix_acl_default", &acl(&[(ONE, 7)]), 0)?;
    fs::write(below.join("f"), b"x")?;
    same("the mode of a new file", mode(&below.join("f"))?, 0o664)?;
    fs::create_dir(below.join("e"))?;
    same("handed down", get_xattr(&below.join("e"), "system.posix_acl_default")?, acl(&[(ONE, 7)]))?;
    as_user(ONE, &[ONE], || Ok(drop(File::create(below.join("e/made"))?)))?;
    refused(
        "a default ACL on a file",
        set_xattr(&path, "system.posix_acl_default", &acl(&[]), 0),
        libc::EACCES,
    )?;
    refused("half an ACL", set_xattr(&path, "system.posix_acl_access", &acl(&[])[..21], 0), libc::EINVAL)?;
    // Taking ACLs away, also where there is none.
    if Command::new("setfacl").arg("--version").output().is_ok() {
        for path in [&path, &below] {
            let done = Command::new("setfacl").arg("-b").arg(path).output()?;
            ensure!(done.status.success(), "setfacl -b: {}", String::from_utf8_lossy(&done.stderr));
            ensure!(!list_xattrs(path)?.iter().any(|name| name.starts_with("system.")), "ACLs are left");
        }
    }
    Ok(())
}

pub fn special_files(dir: &Path) -> Result<()> {
    let make = |name: &str, mode: u32, device: u64| {
        let path = c_path(&dir.join(name));
        // SAFETY: the string ends in NUL and lives until the call returns.
        call(unsafe { libc::mknod(path.as_ptr(), mode, device) })
    };
    make("fifo", libc::S_IFIFO | 0o644, 0)?;
    make("socket", libc::S_IFSOCK | 0o644, 0)?;
    make("null", libc::S_IFCHR | 0o666, libc::makedev(1, 3))?;
    make("disk", libc::S_IFBLK | 0o600, libc::makedev(259, 70_000))?;
    make("file", libc::S_IFREG | 0o644, 0)?;
    let kind = |name: &str| Ok::<_, std::io::Error>(dir.join(name).symlink_metadata()?.file_type());
    ensure!(kind("fifo")?.is_fifo() && kind("socket")?.is_socket() && kind("file")?.is_file(), "kinds");
    ensure!(kind("null")?.is_char_device() && kind("disk")?.is_block_device(), "kinds of devices");
    same("numbers", dir.join("disk").metadata()?.rdev(), libc::makedev(259, 70_000))?;
    match OpenOptions::new().write(true).open(dir.join("null")) {
        Ok(mut null) => null.write_all(b"nothing")?,
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => return skip("mounted with nodev"),
        Err(error) => return Err(error.into()),
    }
    let fifo = dir.join("fifo");
    let text = std::thread::scope(|scope| {
        let reader = scope.spawn(|| fs::read(&fifo));
        fs::write(&fifo, b"through the fifo")?;
        reader.join().unwrap_or_else(|_| Err(std::io::Error::other("the reader panicked")))
    })?;
    same("through the fifo", text, b"through the fifo".to_vec())?;
    as_user(ONE, &[ONE], || refused("a stranger's device", make("x", libc::S_IFCHR, 259), libc::EPERM))
}

pub fn xattrs(dir: &Path) -> Result<()> {
    let path = dir.join("f");
    fs::write(&path, b"")?;
    let longest = format!("user.{}", "n".repeat(250));
    match set_xattr(&path, "user.a", b"1", libc::XATTR_CREATE) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return skip("no attributes here"),
        other => other?,
    }
    refused("XATTR_CREATE twice", set_xattr(&path, "user.a", b"2", libc::XATTR_CREATE), libc::EEXIST)?;
    refused("XATTR_REPLACE of nothing", set_xattr(&path, "user.b", b"", libc::XATTR_REPLACE), libc::ENODATA)?;
    set_xattr(&path, "user.empty", b"", 0)?;
    set_xattr(&path, &longest, &vec![7; 65_536], 0)?;
    same("a value of 64 KiB", get_xattr(&path, &longest)?, vec![7; 65_536])?;
    refused("a value of one byte more", set_xattr(&path, "user.b", &vec![0; 65_537], 0), libc::E2BIG)?;
    refused("a name of 256 bytes", set_xattr(&path, &format!("{longest}n"), b"", 0), libc::ERANGE)?;
    refused("an attribute that is not there", get_xattr(&path, "user.none"), libc::ENODATA)?;
    for n in 0..1_000 {
        set_xattr(&path, &format!("user.many{n}"), n.to_string().as_bytes(), 0)?;
    }
    same("one of many", get_xattr(&path, "user.many617")?, b"617".to_vec())?;
    same("all of many", list_xattrs(&path)?.len(), 1_003)?;
    // Where the drive shows how safe a file is, no backup copies the attribute and nobody sets it.
    ensure!(!list_xattrs(&path)?.iter().any(|name| name.contains("durability")), "listed");
    let kind = nix::sys::statfs::statfs(&path)?.filesystem_type();
    if kind == nix::sys::statfs::FUSE_SUPER_MAGIC {
        let set = set_xattr(&path, "user.holdfast.durability", b"Proven", 0);
        refused("setting the durability", set, libc::EPERM)?;
        survive(dir)?;
    }
    if nix::unistd::geteuid().is_root() {
        set_xattr(&path, "trusted.a", b"", 0)?;
        let listed = || -> Result<bool> { Ok(list_xattrs(&path)?.iter().any(|name| name == "trusted.a")) };
        ensure!(listed()?, "root does not see trusted.*");
        ensure!(!as_user(ONE, &[ONE], listed)?, "everybody sees trusted.*");
    }
    let other = dir.join("g");
    fs::copy(&path, &other)?;
    same("attributes of another file", list_xattrs(&other)?.len(), 0)
}

/// The attribute that says how many losses what is below has to survive.
fn survive(dir: &Path) -> Result<()> {
    const NAME: &str = "user.holdfast.survive";
    let folder = dir.join("survive");
    fs::create_dir(&folder)?;
    for bad in ["", "10", "x", "3 ", "03", "-1"] {
        refused("a number that is none", set_xattr(&folder, NAME, bad.as_bytes(), 0), libc::EINVAL)?;
    }
    refused("a policy that is not there", get_xattr(&folder, NAME), libc::ENODATA)?;
    set_xattr(&folder, NAME, b"4", libc::XATTR_CREATE)?;
    refused("XATTR_CREATE twice", set_xattr(&folder, NAME, b"2", libc::XATTR_CREATE), libc::EEXIST)?;
    set_xattr(&folder, NAME, b"3", libc::XATTR_REPLACE)?;
    same("a policy", get_xattr(&folder, NAME)?, b"3".to_vec())?;
    same("the policy's name", list_xattrs(&folder)?, vec![NAME.to_owned()])?;
    let file = folder.join("f");
    fs::write(&file, b"1")?;
    refused("what is inherited is no attribute", get_xattr(&file, NAME), libc::ENODATA)?;
    set_xattr(&file, NAME, b"0", 0)?;
    remove_xattr(&folder, NAME)?;
    refused("a policy that was taken away", get_xattr(&folder, NAME), libc::ENODATA)?;
    same("a file's own", get_xattr(&file, NAME)?, b"0".to_vec())
}

pub fn locks(dir: &Path) -> Result<()> {
    let path = dir.join("f");
    let (one, other) = (File::create(&path)?, File::create(&path)?);
    // SAFETY: a descriptor and a number.
    let flock = |file: &File, how: i32| call(unsafe { libc::flock(file.as_raw_fd(), how) });
    flock(&one, libc::LOCK_EX)?;
    refused("a second flock", flock(&other, libc::LOCK_EX | libc::LOCK_NB), libc::EAGAIN)?;
    flock(&one, libc::LOCK_UN)?;
    flock(&other, libc::LOCK_SH | libc::LOCK_NB)?;
    flock(&one, libc::LOCK_SH | libc::LOCK_NB)?;
    let record = |file: &File, kind: i32, from: i64, len: i64| {
        let lock = libc::flock {
            l_type: kind as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: from,
            l_len: len,
            l_pid: 0,
        };
        // Locks of the open file, so that two of one process meet.
        // SAFETY: the structure lives until the call returns.
        call(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) })
    };
    record(&one, libc::F_WRLCK, 0, 100)?;
    refused("an overlapping record", record(&other, libc::F_WRLCK, 50, 100), libc::EAGAIN)?;
    record(&other, libc::F_WRLCK, 100, 100)?;
    drop(one);
    record(&other, libc::F_WRLCK, 0, 200).map(drop).map_err(Into::into)
}
