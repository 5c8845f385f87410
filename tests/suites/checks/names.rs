//! Directories, names, links, renames.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use super::kit::{refused, rename2, same};

/// As on ext4.
const LINKS_MAX: u64 = 65_000;

fn names_in(dir: &Path) -> Result<Vec<OsString>> {
    let mut names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

pub fn names_of_any_bytes(dir: &Path) -> Result<()> {
    let mut made = Vec::new();
    let mut make = |name: &[u8]| -> Result<()> {
        let name = OsStr::from_bytes(name);
        fs::write(dir.join(name), name.as_bytes()).with_context(|| format!("{name:?}"))?;
        made.push(name.to_owned());
        Ok(())
    };
    make(&[b'x'; 255])?;
    make(&"ä".repeat(127).into_bytes())?;
    make(b"\xff\xfe not UTF-8 \x80")?;
    make(b"new\nline, tab\t, quote\", back\\slash, \x01\x7f")?;
    make(b" ")?;
    make(b"...")?;
    make(b"-rf")?;
    make(b"Case")?;
    make(b"case")?;
    // One letter in two normal forms: two names.
    make("\u{e9}".as_bytes())?;
    make("e\u{301}".as_bytes())?;
    made.sort();
    same("names", names_in(dir)?, made.clone())?;
    for name in &made {
        same("content", fs::read(dir.join(name))?, name.as_bytes().to_vec())?;
    }
    refused("a name of 256 bytes", File::create(dir.join("x".repeat(256))), libc::ENAMETOOLONG)?;
    refused("a look at a name of 256 bytes", dir.join("x".repeat(256)).metadata(), libc::ENAMETOOLONG)?;
    let mut deep = dir.to_owned();
    while deep.as_os_str().len() < 4_096 {
        deep.push("x");
    }
    refused("a path of 4096 bytes", deep.metadata(), libc::ENAMETOOLONG)
}

pub fn links(dir: &Path) -> Result<()> {
    let first = dir.join("first");
    fs::write(&first, b"one file")?;
    refused("a link to a directory", fs::hard_link(dir, dir.join("d")), libc::EPERM)?;
    refused("a link over a name", fs::hard_link(&first, &first), libc::EEXIST)?;
    for n in 1..LINKS_MAX {
        fs::hard_link(&first, dir.join(n.to_string())).with_context(|| format!("link {n}"))?;
    }
    same("links", first.metadata()?.nlink(), LINKS_MAX)?;
    refused("one link more", fs::hard_link(&first, dir.join("more")), libc::EMLINK)?;
    for n in 1..LINKS_MAX {
        fs::remove_file(dir.join(n.to_string()))?;
    }
    same("links", first.metadata()?.nlink(), 1)?;
    same("content", fs::read(&first)?, b"one file".to_vec())
}

pub fn renames(dir: &Path) -> Result<()> {
    let path = |name: &str| dir.join(name);
    fs::create_dir_all(path("a/b/c"))?;
    fs::write(path("file"), b"f")?;
    refused("a directory below itself", fs::rename(path("a"), path("a/b/d")), libc::EINVAL)?;
    refused("over its own parent", fs::rename(path("a/b"), path("a")), libc::ENOTEMPTY)?;
    refused("a directory over a file", fs::rename(path("a"), path("file")), libc::ENOTDIR)?;
    refused("a file over a directory", fs::rename(path("file"), path("a")), libc::EISDIR)?;
    refused("what is not there", fs::rename(path("no"), path("a/no")), libc::ENOENT)?;
    refused("of the folder itself", fs::rename(path("."), path("dot")), libc::EBUSY)?;
    same("links of a", path("a").metadata()?.nlink(), 3)?;
    // An empty directory is replaced, and the parents count their subdirectories.
    fs::create_dir(path("empty"))?;
    let links = dir.metadata()?.nlink();
    fs::rename(path("a/b"), path("empty"))?;
    same("links of a", path("a").metadata()?.nlink(), 2)?;
    same("links of the folder", dir.metadata()?.nlink(), links)?;
    same(".. of the moved", path("empty/..").metadata()?.ino(), dir.metadata()?.ino())?;
    ensure!(path("empty/c").is_dir(), "what was in it came along");
    // Two names of one file: nothing happens.
    fs::hard_link(path("file"), path("other"))?;
    fs::rename(path("file"), path("other"))?;
    same("links of the file", path("file").metadata()?.nlink(), 2)
}

pub fn rename_flags(dir: &Path) -> Result<()> {
    let (a, b) = (dir.join("a"), dir.join("b"));
    fs::write(&a, b"a")?;
    fs::create_dir(&b)?;
    refused("RENAME_NOREPLACE over a name", rename2(&a, &b, libc::RENAME_NOREPLACE), libc::EEXIST)?;
    refused(
        "RENAME_EXCHANGE with nothing",
        rename2(&a, &dir.join("c"), libc::RENAME_EXCHANGE),
        libc::ENOENT,
    )?;
    rename2(&a, &b, libc::RENAME_EXCHANGE)?;
    ensure!(a.is_dir() && b.is_file(), "both changed places");
    rename2(&b, &dir.join("c"), libc::RENAME_NOREPLACE)?;
    same("content", fs::read(dir.join("c"))?, b"a".to_vec())?;
    let both = libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE;
    refused("both flags", rename2(&a, &dir.join("c"), both), libc::EINVAL)?;
    let whiteout = libc::RENAME_WHITEOUT | libc::RENAME_EXCHANGE;
    refused("an exchange that leaves something", rename2(&a, &dir.join("c"), whiteout), libc::EINVAL)?;
    rename2(&dir.join("c"), &dir.join("d"), libc::RENAME_WHITEOUT)?;
    let left = dir.join("c").symlink_metadata()?;
    same("kind and number of what was left", (left.mode(), left.rdev()), (libc::S_IFCHR, 0))?;
    same("content", fs::read(dir.join("d"))?, b"a".to_vec())
}

pub fn never_missing(dir: &Path) -> Result<()> {
    let (name, done) = (dir.join("name"), AtomicBool::new(false));
    fs::write(&name, [b'0'; 100])?;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<()> {
            let result = (0..2_000u32).try_for_each(|n| {
                let new = dir.join(format!("new{}", n % 3));
                fs::write(&new, [b'0' + (n % 10) as u8; 100])?;
                fs::rename(&new, &name)
            });
            done.store(true, Ordering::Release);
            Ok(result?)
        });
        let mut reads = 0u32;
        while !done.load(Ordering::Acquire) {
            let bytes = fs::read(&name).with_context(|| format!("read {reads}"))?;
            ensure!(bytes.len() == 100 && bytes.iter().all(|b| *b == bytes[0]), "a mixture: {bytes:?}");
            reads += 1;
        }
        writer.join().unwrap_or_else(|_| bail!("the writer panicked"))
    })
}

pub fn listing(dir: &Path) -> Result<()> {
    for n in 0..3_000 {
        File::create(dir.join(format!("stays{n}")))?;
        File::create(dir.join(format!("goes{n}")))?;
    }
    let mut seen = Vec::new();
    for (n, entry) in fs::read_dir(dir)?.enumerate() {
        seen.push(entry?.file_name());
        if n < 3_000 {
            fs::remove_file(dir.join(format!("goes{n}")))?;
            File::create(dir.join(format!("comes{n}")))?;
        }
    }
    let mut stays: Vec<_> = seen.iter().filter(|name| name.as_bytes().starts_with(b"stays")).collect();
    stays.sort();
    same("names given that stayed", stays.len(), 3_000)?;
    stays.dedup();
    same("without doubles", stays.len(), 3_000)?;
    // As `rm -r` does it: removing what is being listed.
    for entry in fs::read_dir(dir)? {
        fs::remove_file(entry?.path())?;
    }
    same("names that are left", names_in(dir)?, Vec::new())
}

pub fn removed_directory(dir: &Path) -> Result<()> {
    let gone = dir.join("gone");
    fs::create_dir(&gone)?;
    let held = File::open(&gone)?;
    refused("unlink of a directory", fs::remove_file(&gone), libc::EISDIR)?;
    fs::write(gone.join("f"), b"")?;
    refused("rmdir of a full one", fs::remove_dir(&gone), libc::ENOTEMPTY)?;
    refused("rmdir of a file", fs::remove_dir(gone.join("f")), libc::ENOTDIR)?;
    fs::remove_file(gone.join("f"))?;
    fs::remove_dir(&gone)?;
    let meta = held.metadata()?;
    ensure!(meta.is_dir() && meta.nlink() == 0, "a directory without links");
    held.sync_all().context("fsync of it")?;
    // What is made in it goes nowhere.
    let inside =
        Path::new("/proc/self/fd").join(std::os::fd::AsRawFd::as_raw_fd(&held).to_string()).join("x");
    refused("creation in it", File::create(inside), libc::ENOENT)
}

pub fn symlinks(dir: &Path) -> Result<()> {
    let link = dir.join("link");
    let target = "t".repeat(4_095);
    symlink(&target, &link)?;
    same("target", fs::read_link(&link)?, target.clone().into())?;
    same("size", link.symlink_metadata()?.len(), 4_095)?;
    refused("a target of 4096 bytes", symlink("t".repeat(4_096), dir.join("long")), libc::ENAMETOOLONG)?;
    refused("an empty target", symlink("", dir.join("empty")), libc::ENOENT)?;
    symlink("loop", dir.join("loop"))?;
    refused("a loop", File::open(dir.join("loop")), libc::ELOOP)?;
    // A dangling one can be opened to create what it names.
    symlink("made", dir.join("dangling"))?;
    fs::write(dir.join("dangling"), b"x")?;
    same("through the link", fs::read(dir.join("made"))?, b"x".to_vec())?;
    fs::hard_link(&link, dir.join("second"))?;
    same("links of a link", link.symlink_metadata()?.nlink(), 2)
}

pub fn large_directory(dir: &Path) -> Result<()> {
    const ENTRIES: u32 = 200_000;
    let start = Instant::now();
    for n in 0..ENTRIES {
        File::create(dir.join(format!("entry number {n}")))?;
    }
    let created = start.elapsed();
    same("entries", fs::read_dir(dir)?.count(), ENTRIES as usize)?;
    let listed = start.elapsed() - created;
    for n in (0..ENTRIES).step_by(97) {
        ensure!(dir.join(format!("entry number {n}")).exists(), "entry {n} is missing");
    }
    let start = Instant::now();
    for entry in fs::read_dir(dir)? {
        fs::remove_file(entry?.path())?;
    }
    same("entries left", fs::read_dir(dir)?.count(), 0)?;
    println!(
        "note: 200,000 entries: created in {created:.1?}, listed in {listed:.1?}, removed in {:.1?}",
        start.elapsed()
    );
    Ok(())
}
