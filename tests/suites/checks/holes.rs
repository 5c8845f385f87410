//! Holes, room, copies that share.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::kit::{allocate, bytes_of, call, refused, same, seek};

const MIB: u64 = 1 << 20;

fn new_file(dir: &Path, name: &str) -> Result<File> {
    Ok(OpenOptions::new().read(true).write(true).create_new(true).open(dir.join(name))?)
}

/// What was written and not yet synced is data for whoever looks for it, also through another descriptor.
pub fn dirty_pages(dir: &Path) -> Result<()> {
    let file = new_file(dir, "f")?;
    file.write_all_at(&[1; 8192], 0)?;
    file.write_all_at(&[1; 8192], MIB)?;
    let other = File::open(dir.join("f"))?;
    for file in [&file, &other] {
        same("the first data", seek(file, 0, libc::SEEK_DATA)?, 0)?;
        ensure!(seek(file, 0, libc::SEEK_HOLE)? >= 8192, "a hole where data was written");
        ensure!(seek(file, 100_000, libc::SEEK_DATA)? <= MIB, "the data behind the hole was overlooked");
        same("the end", seek(file, MIB as i64, libc::SEEK_HOLE)?, MIB + 8192)?;
    }
    // A copy that looks for holes, as cp and tar do, has everything.
    let copied =
        std::process::Command::new("cp").args(["--sparse=auto", "f", "copy"]).current_dir(dir).status()?;
    ensure!(copied.success(), "cp failed");
    ensure!(fs::read(dir.join("copy"))? == bytes_of(&file)?, "the copy differs");
    Ok(())
}

pub fn found(dir: &Path) -> Result<()> {
    let file = new_file(dir, "f")?;
    file.write_all_at(&[1; 65_536], 4 * MIB)?;
    file.set_len(16 * MIB)?;
    file.sync_all()?;
    same("the data", seek(&file, 0, libc::SEEK_DATA)?, 4 * MIB)?;
    same("a hole in a hole", seek(&file, 10, libc::SEEK_HOLE)?, 10)?;
    same("the hole behind", seek(&file, 4 * MIB as i64, libc::SEEK_HOLE)?, 4 * MIB + 65_536)?;
    refused("data behind the last", seek(&file, 8 * MIB as i64, libc::SEEK_DATA), libc::ENXIO)?;
    refused("data at the end", seek(&file, 16 * MIB as i64, libc::SEEK_DATA), libc::ENXIO)?;
    refused("a hole at the end", seek(&file, 16 * MIB as i64, libc::SEEK_HOLE), libc::ENXIO)?;
    refused("a negative offset", seek(&file, -1, libc::SEEK_DATA), libc::ENXIO)?;
    ensure!(file.metadata()?.blocks() <= 65_536 / 512 + 16, "blocks: {}", file.metadata()?.blocks());
    Ok(())
}

/// What was synced takes room for whoever looks, while it is still open.
pub fn shown(dir: &Path) -> Result<()> {
    let file = new_file(dir, "f")?;
    for part in 1..4 {
        file.write_all_at(&[1; MIB as usize], (part - 1) * MIB)?;
        file.sync_all()?;
        let blocks = file.metadata()?.blocks();
        ensure!(blocks >= part * MIB / 512, "{blocks} blocks for {part} MiB");
    }
    Ok(())
}

fn allocate_modes(file: &File) -> Result<()> {
    let keep = libc::FALLOC_FL_KEEP_SIZE;
    allocate(file, 0, 0, 100_000)?;
    same("size", file.metadata()?.len(), 100_000)?;
    allocate(file, keep, 0, 1 << 20)?;
    same("size kept", file.metadata()?.len(), 100_000)?;
    ensure!(bytes_of(file)?.iter().all(|b| *b == 0), "zeros");
    file.write_all_at(&[5; 100_000], 0)?;
    allocate(file, libc::FALLOC_FL_PUNCH_HOLE | keep, 4_096, 8_192)?;
    allocate(file, libc::FALLOC_FL_ZERO_RANGE, 50_000, 10_000)?;
    allocate(file, libc::FALLOC_FL_ZERO_RANGE, 99_000, 2_000)?;
    same("size grown", file.metadata()?.len(), 101_000)?;
    let mut expected = vec![5; 99_000];
    expected.resize(101_000, 0);
    expected[4_096..12_288].fill(0);
    expected[50_000..60_000].fill(0);
    ensure!(bytes_of(file)? == expected, "zeros where they were asked for, and only there");
    Ok(())
}

fn allocate_refusals(file: &File) -> Result<()> {
    refused("no length", allocate(file, 0, 0, 0), libc::EINVAL)?;
    refused(
        "a hole that changes the size",
        allocate(file, libc::FALLOC_FL_PUNCH_HOLE, 0, 1),
        libc::EOPNOTSUPP,
    )?;
    refused("beyond the largest offset", allocate(file, 0, i64::MAX - 5_000, 4_096), libc::EFBIG)?;
    let size = file.metadata()?.len();
    // ext4 and others fill the disk before they say so.
    let kind = nix::sys::statfs::fstatfs(file)?.filesystem_type();
    if kind == nix::sys::statfs::FUSE_SUPER_MAGIC {
        refused("more than there is", allocate(file, 0, 0, 1 << 43), libc::ENOSPC)?;
    }
    same("size after a refusal", file.metadata()?.len(), size)
}

pub fn room(dir: &Path) -> Result<()> {
    let file = new_file(dir, "f")?;
    allocate_modes(&file)?;
    allocate_refusals(&file)
}

fn copy_range(from: &File, at: u64, to: &File, to_at: u64, len: usize) -> std::io::Result<usize> {
    let (mut at, mut to_at) = (at as i64, to_at as i64);
    // SAFETY: descriptors, numbers, and two places that the kernel may write.
    let done =
        unsafe { libc::copy_file_range(from.as_raw_fd(), &mut at, to.as_raw_fd(), &mut to_at, len, 0) };
    call(done as i64).map(|n| n as usize)
}

pub fn copies(dir: &Path) -> Result<()> {
    let (from, to) = (new_file(dir, "from")?, new_file(dir, "to")?);
    let bytes: Vec<u8> = (0..MIB as u32 * 3).map(|n| (n / 7) as u8).collect();
    from.write_all_at(&bytes, 0)?;
    to.write_all_at(&[9; 10_000], 0)?;
    let mut done = 0;
    while done < bytes.len() {
        // Not aligned to anything.
        let n = copy_range(&from, done as u64, &to, 777 + done as u64, bytes.len() - done).context("copy")?;
        ensure!(n > 0, "a copy that makes no way");
        done += n;
    }
    same("at the end of the source", copy_range(&from, bytes.len() as u64, &to, 0, 10)?, 0)?;
    let copied = bytes_of(&to)?;
    ensure!(copied[..777] == [9; 777] && copied[777..] == bytes, "the copy differs");
    // Both go their own way.
    from.write_all_at(&[0; 5_000], 1_000)?;
    ensure!(bytes_of(&to)?[777..] == bytes, "a write to the source shows in the copy");
    refused("onto itself", copy_range(&from, 0, &from, 100, 1_000), libc::EINVAL)?;
    same("within a file", copy_range(&from, 0, &from, 8 * MIB, 1_000)?, 1_000)?;
    ensure!(bytes_of(&from)?[8 * MIB as usize..] == bytes[..1_000], "the copy within a file");
    Ok(())
}
