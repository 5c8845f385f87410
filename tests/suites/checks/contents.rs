//! What is in a file: open and unlinked, appended, mapped, direct, truncated.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::kit::{bytes_of, call, refused, same};

const PAGE: usize = 4096;

fn open_both(path: &Path) -> Result<File> {
    Ok(OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?)
}

pub fn unlinked(dir: &Path) -> Result<()> {
    let path = dir.join("f");
    let file = open_both(&path)?;
    file.write_all_at(b"before", 0)?;
    fs::remove_file(&path)?;
    refused("its name", File::open(&path), libc::ENOENT)?;
    file.write_all_at(b" and after", 6)?;
    file.sync_all().context("fsync")?;
    file.set_permissions(fs::Permissions::from_mode(0o640)).context("fchmod")?;
    file.set_len(9).context("ftruncate")?;
    file.set_modified(std::time::UNIX_EPOCH).context("futimens")?;
    let meta = file.metadata()?;
    same("links, mode, size", (meta.nlink(), meta.mode() & 0o7777, meta.len()), (0, 0o640, 9))?;
    same("mtime", meta.mtime(), 0)?;
    same("content", bytes_of(&file)?, b"before an".to_vec())?;
    // A second description of the same open file outlives the first.
    let second = file.try_clone()?;
    drop(file);
    same("content", bytes_of(&second)?, b"before an".to_vec())
}

pub fn replaced(dir: &Path) -> Result<()> {
    let (old, new) = (dir.join("old"), dir.join("new"));
    fs::write(&old, vec![b'o'; 100_000])?;
    fs::write(&new, vec![b'n'; 50_000])?;
    let held = open_both(&old)?;
    fs::rename(&new, &old)?;
    same("links of the replaced", held.metadata()?.nlink(), 0)?;
    held.write_all_at(b"still", 99_995)?;
    held.sync_all()?;
    let bytes = bytes_of(&held)?;
    ensure!(
        bytes.len() == 100_000 && bytes.ends_with(b"ostill") && bytes.starts_with(b"ooo"),
        "the old bytes"
    );
    same("the new bytes", fs::read(&old)?, vec![b'n'; 50_000])
}

pub fn appends(dir: &Path) -> Result<()> {
    const WRITERS: usize = 4;
    const LINES: usize = 500;
    let path = dir.join("log");
    File::create(&path)?;
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let path = &path;
            scope.spawn(move || -> Result<()> {
                let mut file = OpenOptions::new().append(true).open(path)?;
                for line in 0..LINES {
                    // Some written at once, some across pages.
                    let text = format!("{writer} {line} {}\n", "x".repeat(line % 97));
                    file.write_all(text.as_bytes())?;
                }
                Ok(())
            });
        }
    });
    let text = fs::read_to_string(&path)?;
    let mut next = [0; WRITERS];
    for line in text.lines() {
        let mut words = line.split(' ');
        let mut number = || words.next().and_then(|word| word.parse::<usize>().ok()).context("a torn line");
        let (writer, line) = (number()?, number()?);
        same("the next line of a writer", line, next[writer])?;
        next[writer] += 1;
    }
    same("lines", next, [LINES; WRITERS])?;
    // Truncating to nothing while somebody appends leaves no hole before what comes later.
    let mut appending = OpenOptions::new().append(true).open(&path)?;
    File::create(&path)?;
    appending.write_all(b"after")?;
    same("content", fs::read(&path)?, b"after".to_vec())
}

/// A shared mapping.
struct Mapping {
    at: *mut u8,
    len: usize,
}

impl Mapping {
    fn new(file: &File, len: usize) -> Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED {
            bail!("mmap: {}", std::io::Error::last_os_error());
        }
        Ok(Mapping { at: at.cast(), len })
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: mapped for as long as `self` lives; the file is not made shorter meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }

    fn sync(&self) -> Result<()> {
        // SAFETY: the range is mapped.
        call(unsafe { libc::msync(self.at.cast(), self.len, libc::MS_SYNC) }).context("msync")?;
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nobody has a slice of it any more.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

pub fn mapped(dir: &Path) -> Result<()> {
    let path = dir.join("f");
    let file = open_both(&path)?;
    file.write_all_at(&vec![1; 3 * PAGE], 0)?;
    let mut map = Mapping::new(&file, 3 * PAGE)?;
    same("a written byte, mapped", map.bytes()[PAGE], 1)?;
    file.write_all_at(&[2], PAGE as u64)?;
    same("a byte written since", map.bytes()[PAGE], 2)?;
    map.bytes()[2 * PAGE] = 3;
    let mut byte = [0];
    file.read_exact_at(&mut byte, 2 * PAGE as u64)?;
    same("a mapped byte, read", byte[0], 3)?;
    map.sync()?;
    map.bytes()[5] = 4;
    // The mapping lives on after the file is closed, and its pages reach the file.
    drop(file);
    map.bytes()[6] = 5;
    drop(map);
    let bytes = fs::read(&path)?;
    same("the mapped bytes", (bytes[5], bytes[6], bytes[2 * PAGE], bytes.len()), (4, 5, 3, 3 * PAGE))?;
    // Another program sees what is mapped here while it is mapped.
    let file = open_both(&path)?;
    let mut map = Mapping::new(&file, PAGE)?;
    map.bytes()[7] = 6;
    let seen = std::process::Command::new("cat").arg(&path).output()?.stdout;
    same("as another program sees it", seen.get(7).copied(), Some(6))
}

/// Memory for O_DIRECT.
#[repr(align(4096))]
struct Aligned([u8; 16 * PAGE]);

/// Random reads, writes, truncations, holes and mappings, direct and cached in turn, against plain bytes in memory.
pub fn direct(dir: &Path) -> Result<()> {
    const STEPS: u32 = 3_000;
    const PAGES: u64 = 256;
    let path = dir.join("f");
    let cached = open_both(&path)?;
    let direct = match OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            return super::kit::skip("no O_DIRECT here");
        }
        other => other?,
    };
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut model: Vec<u8> = Vec::new();
    let mut buffer = Box::new(Aligned([0; 16 * PAGE]));
    for step in 0..STEPS {
        let file = if rng.next_u32() % 2 == 0 { &cached } else { &direct };
        let at = u64::from(rng.next_u32()) % PAGES * PAGE as u64;
        let len = (1 + rng.next_u32() as usize % 16) * PAGE;
        let end = at as usize + len;
        match rng.next_u32() % 10 {
            0..=3 => {
                let byte = (step % 251 + 1) as u8;
                buffer.0[..len].fill(byte);
                file.write_all_at(&buffer.0[..len], at).with_context(|| format!("step {step}: write"))?;
                if model.len() < end {
                    model.resize(end, 0);
                }
                model[at as usize..end].fill(byte);
            }
            4 => {
                let size = (u64::from(rng.next_u32()) % (PAGES + 16)) * PAGE as u64;
                file.set_len(size)?;
                model.resize(size as usize, 0);
            }
            5 => {
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                super::kit::allocate(file, mode, at as i64, len as i64)?;
                let size = model.len();
                model[(at as usize).min(size)..end.min(size)].fill(0);
            }
            6 if end <= model.len() => {
                let mut map = Mapping::new(&cached, model.len())?;
                map.bytes()[at as usize..end].fill(0xee);
                model[at as usize..end].fill(0xee);
            }
            _ => {
                let expected = &model[(at as usize).min(model.len())..end.min(model.len())];
                let read =
                    file.read_at(&mut buffer.0[..len], at).with_context(|| format!("step {step}: read"))?;
                same(&format!("step {step}: bytes read at {at}"), read, expected.len())?;
                ensure!(buffer.0[..read] == *expected, "step {step}: wrong bytes in {at}..{end}");
            }
        }
    }
    same("size", cached.metadata()?.len(), model.len() as u64)?;
    ensure!(fs::read(&path)? == model, "wrong bytes at the end");
    Ok(())
}

pub fn truncation(dir: &Path) -> Result<()> {
    let file = open_both(&dir.join("f"))?;
    file.write_all_at(&[7; 10_000], 0)?;
    file.set_len(5_001)?;
    file.set_len(9_000)?;
    let mut expected = vec![7; 5_001];
    expected.resize(9_000, 0);
    same("content", bytes_of(&file)?, expected)?;
    // A write beyond the end leaves zeros between.
    file.write_all_at(b"x", 20_000)?;
    ensure!(bytes_of(&file)?[9_000..20_000].iter().all(|b| *b == 0), "zeros up to the write");
    // SAFETY: a descriptor and a number.
    refused("a negative size", call(unsafe { libc::ftruncate(file.as_raw_fd(), -1) }), libc::EINVAL)?;
    let reader = File::open(dir.join("f"))?;
    refused("of a file opened for reading", reader.set_len(1), libc::EINVAL)?;
    same("a read beyond the end", reader.read_at(&mut [0; 8], 1 << 40)?, 0)
}

pub fn largest_offset(dir: &Path) -> Result<()> {
    const LARGEST: u64 = ((1 << 32) - 1) << 12;
    let file = open_both(&dir.join("f"))?;
    file.set_len(LARGEST)?;
    file.write_all_at(b"end", LARGEST - 3)?;
    file.sync_all()?;
    let mut end = [0; 4];
    same("bytes read at the end", file.read_at(&mut end, LARGEST - 3)?, 3)?;
    same("the last bytes", &end, b"end\0")?;
    refused("one byte more", file.set_len(LARGEST + 1), libc::EFBIG)?;
    // Into the kernel's cache goes more than that. Then fsync tells, else the short answer does.
    match file.write_at(b"ends", LARGEST - 3)? {
        4 => ensure!(file.sync_all().is_err(), "a byte was lost, and nobody was told"),
        wrote => same("bytes written up to the last", wrote, 3)?,
    }
    file.set_len(LARGEST)?;
    let meta = file.metadata()?;
    ensure!(meta.blocks() < 1_000, "{} blocks for three bytes", meta.blocks());
    same(
        "the data",
        super::kit::seek(&file, 0, libc::SEEK_DATA)? / PAGE as u64,
        (LARGEST - 3) / PAGE as u64,
    )?;
    file.set_len(0)?;
    same("size", file.metadata()?.len(), 0)
}

pub fn open_flags(dir: &Path) -> Result<()> {
    let path = dir.join("f");
    fs::write(&path, b"content")?;
    let open = |flags: i32| OpenOptions::new().read(true).custom_flags(flags).open(&path);
    refused("O_DIRECTORY on a file", open(libc::O_DIRECTORY), libc::ENOTDIR)?;
    std::os::unix::fs::symlink("f", dir.join("link"))?;
    let link = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(dir.join("link"));
    refused("O_NOFOLLOW on a link", link, libc::ELOOP)?;
    refused("O_EXCL on a name", OpenOptions::new().write(true).create_new(true).open(&path), libc::EEXIST)?;
    refused("a directory for writing", OpenOptions::new().write(true).open(dir), libc::EISDIR)?;
    let unnamed = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(dir);
    if let Err(error) = unnamed {
        same("O_TMPFILE is refused as not supported", error.raw_os_error(), Some(libc::EOPNOTSUPP))?;
    }
    // O_TRUNC at once for everybody.
    let mut reader = File::open(&path)?;
    File::create(&path)?;
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest)?;
    same("what is left", rest, Vec::new())?;
    // O_SYNC and O_DSYNC write.
    for flag in [libc::O_SYNC, libc::O_DSYNC] {
        let mut file = OpenOptions::new().read(true).write(true).custom_flags(flag).open(&path)?;
        file.write_all(b"synced")?;
        file.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        same("content", bytes, b"synced".to_vec())?;
    }
    Ok(())
}
