//! What programs around the file system see: inotify, df, exec.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::kit::{c_path, call, refused, same};

pub fn watched(dir: &Path) -> Result<()> {
    let path = c_path(dir);
    // SAFETY: numbers, and a string that ends in NUL; the new descriptor is nobody else's.
    let mut events = unsafe {
        let fd = call(libc::inotify_init1(libc::IN_NONBLOCK))? as i32;
        let file = File::from(OwnedFd::from_raw_fd(fd));
        call(libc::inotify_add_watch(fd, path.as_ptr(), libc::IN_ALL_EVENTS))?;
        file
    };
    fs::write(dir.join("f"), b"x")?;
    fs::rename(dir.join("f"), dir.join("g"))?;
    fs::remove_file(dir.join("g"))?;
    let mut bytes = vec![0; 65_536];
    let n = events.read(&mut bytes)?;
    let mut seen = 0u32;
    let mut rest = bytes.get(..n).unwrap_or_default();
    // struct inotify_event: wd, mask, cookie, len (u32 each), name.
    while let Some((head, tail)) = rest.split_at_checked(16) {
        seen |= u32::from_ne_bytes(head[4..8].try_into()?);
        let len = u32::from_ne_bytes(head[12..16].try_into()?) as usize;
        rest = tail.get(len..).unwrap_or_default();
    }
    let expected = libc::IN_CREATE
        | libc::IN_MODIFY
        | libc::IN_CLOSE_WRITE
        | libc::IN_MOVED_FROM
        | libc::IN_MOVED_TO
        | libc::IN_DELETE;
    same("events", seen & expected, expected)
}

pub fn statfs(dir: &Path) -> Result<()> {
    let stat = nix::sys::statvfs::statvfs(dir)?;
    same("longest name", stat.name_max(), 255)?;
    ensure!(stat.blocks() > 0 && stat.fragment_size() >= 512, "a size: {stat:?}");
    ensure!(stat.blocks_available() <= stat.blocks_free() && stat.blocks_free() <= stat.blocks(), "{stat:?}");
    ensure!(stat.files_free() > 1_000, "inodes: {stat:?}");
    let df = Command::new("df").arg("-h").arg(dir).output()?;
    ensure!(df.status.success(), "df: {}", String::from_utf8_lossy(&df.stderr));
    Ok(())
}

pub fn programs_run(dir: &Path) -> Result<()> {
    let (program, script) = (dir.join("program"), dir.join("script"));
    fs::copy("/bin/echo", &program)?;
    let output = Command::new(&program).arg("hello").output().context("a program on the drive")?;
    same("its output", output.stdout, b"hello\n".to_vec())?;
    fs::write(&script, b"#!/bin/sh\necho \"$0\" | tail -c 7\n")?;
    refused("a file without the bit", Command::new(&script).output(), libc::EACCES)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    same("a script's output", Command::new(&script).output()?.stdout, b"script\n".to_vec())?;
    fs::copy("/bin/sleep", dir.join("sleep"))?;
    let mut running = Command::new(dir.join("sleep")).arg("5").spawn()?;
    let write = File::options().write(true).open(dir.join("sleep"));
    running.kill()?;
    running.wait()?;
    refused("writing to a program that runs", write, libc::ETXTBSY)
}
