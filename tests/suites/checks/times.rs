//! Times: which call moves which, and that what was set stays.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};

use super::kit::{allocate, changed, same, set_xattr, tick};

/// Which of mtime and ctime a call moves forward.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Moves {
    Both,
    Change,
    Neither,
}

fn expect(what: &str, path: &Path, moves: Moves, f: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = changed(path)?;
    tick();
    f().with_context(|| what.to_owned())?;
    let after = changed(path)?;
    let found = match (after.0 > before.0, after.1 > before.1) {
        (true, true) => Moves::Both,
        (false, true) => Moves::Change,
        (false, false) => Moves::Neither,
        (true, false) => bail!("{what}: mtime moved without ctime"),
    };
    ensure!(found == moves, "{what} moved {found:?}, expected {moves:?} ({before:?} -> {after:?})");
    Ok(())
}

pub fn follow(dir: &Path) -> Result<()> {
    let path = dir.join("f");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    let sub = dir.join("sub");
    fs::create_dir(&sub)?;
    fs::write(sub.join("x"), b"")?;
    expect("write", &path, Moves::Both, || Ok(file.write_all_at(b"0123456789", 0)?))?;
    expect("read", &path, Moves::Neither, || Ok(drop(fs::read(&path)?)))?;
    expect("fsync", &path, Moves::Neither, || Ok(file.sync_all()?))?;
    expect("ftruncate", &path, Moves::Both, || Ok(file.set_len(5)?))?;
    expect("fallocate", &path, Moves::Both, || Ok(allocate(&file, 0, 0, 9_000)?))?;
    expect("punch", &path, Moves::Both, || {
        Ok(allocate(&file, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 0, 4_096)?)
    })?;
    expect("O_TRUNC", &path, Moves::Both, || Ok(drop(File::create(&path)?)))?;
    expect("chmod", &path, Moves::Change, || {
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?)
    })?;
    expect("chown", &path, Moves::Change, || {
        let meta = path.metadata()?;
        Ok(std::os::unix::fs::chown(&path, Some(meta.uid()), Some(meta.gid()))?)
    })?;
    expect("setxattr", &path, Moves::Change, || Ok(set_xattr(&path, "user.t", b"1", 0)?))?;
    expect("link", &path, Moves::Change, || Ok(fs::hard_link(&path, dir.join("g"))?))?;
    expect("unlink of another name", &path, Moves::Change, || Ok(fs::remove_file(dir.join("g"))?))?;
    expect("rename", &path, Moves::Change, || {
        fs::rename(&path, dir.join("h"))?;
        Ok(fs::rename(dir.join("h"), &path)?)
    })?;
    let d = |what: &str, f: &dyn Fn() -> Result<()>| expect(what, &sub, Moves::Both, f);
    d("create in a directory", &|| Ok(drop(File::create(sub.join("a"))?)))?;
    d("mkdir in it", &|| Ok(fs::create_dir(sub.join("d"))?))?;
    d("symlink in it", &|| Ok(symlink("x", sub.join("s"))?))?;
    d("link in it", &|| Ok(fs::hard_link(sub.join("a"), sub.join("b"))?))?;
    d("rename in it", &|| Ok(fs::rename(sub.join("b"), sub.join("c"))?))?;
    d("rename out of it", &|| Ok(fs::rename(sub.join("c"), dir.join("c"))?))?;
    d("rename into it", &|| Ok(fs::rename(dir.join("c"), sub.join("c"))?))?;
    d("unlink in it", &|| Ok(fs::remove_file(sub.join("c"))?))?;
    d("rmdir in it", &|| Ok(fs::remove_dir(sub.join("d"))?))?;
    expect("a write to a file in it", &sub, Moves::Neither, || Ok(fs::write(sub.join("a"), b"more")?))?;
    // In the order in which they were made, whoever set the time: a copy is not older than its source.
    for n in 0..20 {
        let (source, target) = (dir.join(format!("source{n}")), dir.join(format!("target{n}")));
        File::create(&source)?;
        fs::write(&target, b"made of it")?;
        let (made, of) = (changed(&target)?.0, changed(&source)?.0);
        ensure!(made >= of, "what was written later seems older: {made:?} < {of:?}");
    }
    Ok(())
}

pub fn kept(dir: &Path) -> Result<()> {
    let path = dir.join("f");
    fs::write(&path, b"content")?;
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    let second = Duration::from_secs(1);
    let times = [
        UNIX_EPOCH,
        UNIX_EPOCH - second / 4,
        UNIX_EPOCH - second * 1_000_000_000 - second / 8,
        UNIX_EPOCH + second * 2_000_000_000 + Duration::from_nanos(999_999_999),
        UNIX_EPOCH + second * 4_000_000_000 + Duration::from_nanos(1),
        UNIX_EPOCH + Duration::from_secs(10_000_000_000),
    ];
    for time in times {
        file.set_times(fs::FileTimes::new().set_accessed(time).set_modified(time))?;
        ensure!(
            file.metadata()?.modified()? == time && file.metadata()?.accessed()? == time,
            "{time:?} at once"
        );
        // Closing and opening it anew makes the kernel write what it holds.
        File::open(&path)?.sync_all()?;
        ensure!(path.metadata()?.modified()? == time, "{time:?} later: {:?}", path.metadata()?.modified()?);
    }
    // The farthest times that a program can name are taken, perhaps as the farthest that can be kept.
    for farthest in ["@-9223372036854775808", "@9223372036854775807"] {
        let done = std::process::Command::new("touch").args(["-d", farthest]).arg(&path).output()?;
        ensure!(done.status.success(), "touch -d {farthest}: {}", String::from_utf8_lossy(&done.stderr));
        path.metadata().with_context(|| format!("after touch -d {farthest}"))?;
    }
    // Only one of both.
    let mtime = path.metadata()?.modified()?;
    file.set_times(fs::FileTimes::new().set_accessed(UNIX_EPOCH + second * 77))?;
    ensure!(path.metadata()?.modified()? == mtime, "mtime moved with atime");
    ensure!(path.metadata()?.atime() == 77, "atime");
    // Set, then written: the write is newer.
    file.set_modified(UNIX_EPOCH)?;
    file.write_all_at(b"x", 0)?;
    ensure!(path.metadata()?.mtime() > 1_000, "a write after utimes");
    // Written, then set: what was set stays, though the pages are written out later.
    file.write_all_at(&[1; 100_000], 0)?;
    file.set_modified(UNIX_EPOCH + second * 5)?;
    file.sync_all()?;
    drop(file);
    ensure!(path.metadata()?.mtime() == 5, "writing out pages moved mtime");
    Ok(())
}

pub fn relatime(dir: &Path) -> Result<()> {
    let path = dir.join("f");
    fs::write(&path, b"content")?;
    let yesterday = std::time::SystemTime::now() - Duration::from_secs(2 * 24 * 60 * 60);
    let drop_cache = |file: &File| {
        // SAFETY: a descriptor and numbers. The read must reach the file system.
        unsafe {
            libc::posix_fadvise(std::os::fd::AsRawFd::as_raw_fd(file), 0, 0, libc::POSIX_FADV_DONTNEED)
        };
    };
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    file.sync_all()?;
    file.set_times(fs::FileTimes::new().set_accessed(yesterday).set_modified(yesterday))?;
    drop_cache(&file);
    // The read must not fall into the tick in which the times were set.
    tick();
    let quiet = OpenOptions::new().read(true).custom_flags(libc::O_NOATIME).open(&path)?;
    same("read with O_NOATIME", quiet.read_at(&mut [0; 7], 0)?, 7)?;
    ensure!(path.metadata()?.accessed()? == yesterday, "atime moved by a read with O_NOATIME");
    drop_cache(&quiet);
    fs::read(&path)?;
    let first = path.metadata()?.accessed()?;
    if first == yesterday {
        return super::kit::skip("mounted with noatime");
    }
    ensure!(first > yesterday, "atime did not move: {first:?}");
    tick();
    drop_cache(&file);
    fs::read(&path)?;
    ensure!(path.metadata()?.accessed()? == first, "atime moved twice in a day without a change");
    // Part of a page that the kernel does not have: it has to read what is around. Due, since the file has changed.
    let writing = OpenOptions::new().write(true).open(&path)?;
    writing.write_all_at(b"x", 3)?;
    writing.sync_all()?;
    let before = path.metadata()?.accessed()?;
    tick();
    drop_cache(&file);
    writing.write_all_at(b"y", 4)?;
    writing.sync_all()?;
    // After a close the kernel asks anew.
    drop(writing);
    ensure!(path.metadata()?.accessed()? == before, "atime moved by a write");
    Ok(())
}
