//! The work itself, on a drive of its own for each size.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::harness::{Context, Drive, Finished, InitOptions, run};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde_json::json;

const LONG: Duration = Duration::from_secs(3600);
/// Files in one folder of the tree.
const FOLDER: u64 = 1000;
/// Bytes of a file.
const BYTES: usize = 100;
/// Files that are looked up, and changed before the second commit.
const SAMPLE: u64 = 2000;
const CHANGED: u64 = 100;

/// Commits of as many changed files, of which the median is taken.
const COMMITS: usize = 5;

/// What is measured.
pub const NAMES: [&str; 16] = [
    "create, µs a file",
    "create, µs of the daemon's CPU a file",
    "first commit, µs a file",
    "first commit, µs of the daemon's CPU a file",
    "commit of 100 changed files, right after it, ms",
    "commit of 100 changed files, median of five, ms",
    "the same, ms of the daemon's CPU",
    "mount, ms",
    "lookup after a remount, µs a file",
    "lookup after a remount, µs of the daemon's CPU a file",
    "readdir after a remount, µs an entry",
    "one folder of all: create, µs a file",
    "one folder of all: readdir, µs an entry",
    "one folder of all: emptying, µs an entry",
    "memory of the daemon at most, MiB",
    "home folder, bytes a file",
];

#[derive(Debug)]
pub struct Figures {
    pub files: u64,
    pub values: [f64; NAMES.len()],
}

fn drive(ctx: &Context, name: &str) -> Result<Drive> {
    // It is sealed when the measurement says so.
    let config = json!({"limits": {"seal_after_idle_seconds": 3600, "seal_after_seconds_max": 7200}});
    let drive = Drive::init(ctx, name, &InitOptions { config, ..InitOptions::default() })?;
    drive.mount()?;
    Ok(drive)
}

fn commit(ctx: &Context, drive: &Drive) -> Result<Duration> {
    let mut command = std::process::Command::new(ctx.bin("holdfast")?);
    command.arg("--home").arg(&drive.home).args(["snapshot", "--json"]);
    let done: Finished = run(&mut command, LONG)?;
    ensure!(done.status.success(), "{done:?}");
    Ok(done.took)
}

/// Of a process: CPU seconds so far, and the most memory that it had, in MiB.
fn process(pid: u32) -> Result<(f64, f64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(") ").context("stat")?.1.split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    // SAFETY: a call on a number.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    let kib: f64 = most.trim().trim_end_matches(" kB").parse()?;
    Ok(((ticks(11) + ticks(12)) / per_second, kib / 1024.0))
}

fn each_us(took: Duration, times: u64) -> f64 {
    took.as_secs_f64() * 1e6 / times.max(1) as f64
}

fn path(at: &Path, n: u64) -> std::path::PathBuf {
    at.join(format!("tree/{:05}/file-{n:08}", n / FOLDER))
}

fn list(dir: &Path) -> Result<u64> {
    let mut entries = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        entries += 1;
        if entry.file_type()?.is_dir() {
            entries += list(&entry.path())?;
        }
    }
    Ok(entries)
}

/// What a piece of work took: wall time, and the daemon's CPU seconds.
struct Took {
    wall: Duration,
    cpu: f64,
}

impl Took {
    fn wall_us(&self, times: u64) -> f64 {
        each_us(self.wall, times)
    }

    fn cpu_us(&self, times: u64) -> f64 {
        self.cpu * 1e6 / times.max(1) as f64
    }
}

fn take(drive: &Drive, work: impl FnOnce() -> Result<()>) -> Result<Took> {
    let pid = drive.pid()?;
    let before = process(pid)?.0;
    let start = Instant::now();
    work()?;
    let wall = start.elapsed();
    Ok(Took { wall, cpu: process(pid)?.0 - before })
}

/// Changes `CHANGED` files, spread over all, and commits.
fn commit_changed(ctx: &Context, drive: &Drive, files: u64, nth: u64) -> Result<Took> {
    for n in 0..CHANGED {
        fs::write(path(&drive.mountpoint, (n * (files / CHANGED) + nth) % files), [!(n + nth) as u8; BYTES])?;
    }
    take(drive, || commit(ctx, drive).map(drop))
}

pub fn many_files(ctx: &Context, files: u64) -> Result<Figures> {
    let drive = drive(ctx, &format!("scale-{files}"))?;
    let at = drive.mountpoint.clone();
    let mut values = [0.0; NAMES.len()];
    let mut memory: f64 = 0.0;
    let mut note_memory = |phase: &str| -> Result<()> {
        let now = process(drive.pid()?)?.1;
        ctx.note(format!("{files} files, {phase}: {now:.0} MiB at most"));
        memory = memory.max(now);
        Ok(())
    };
    let took = take(&drive, || {
        for n in 0..files {
            let path = path(&at, n);
            if n % FOLDER == 0 {
                fs::create_dir_all(path.parent().context("a parent")?)?;
            }
            fs::write(path, [n as u8; BYTES])?;
        }
        drive.command_with(&["sync"])?;
        Ok(())
    })?;
    (values[0], values[1]) = (took.wall_us(files), took.cpu_us(files));
    note_memory("created")?;
    let took = take(&drive, || commit(ctx, &drive).map(drop))?;
    (values[2], values[3]) = (took.wall_us(files), took.cpu_us(files));
    note_memory("committed")?;
    values[4] = commit_changed(ctx, &drive, files, 1)?.wall.as_secs_f64() * 1e3;
    let mut commits = Vec::new();
    for nth in 0..COMMITS {
        let took = commit_changed(ctx, &drive, files, 2 + nth as u64)?;
        commits.push((took.wall.as_secs_f64() * 1e3, took.cpu * 1e3));
    }
    commits.sort_by(|a, b| a.0.total_cmp(&b.0));
    values[5] = commits[COMMITS / 2].0;
    commits.sort_by(|a, b| a.1.total_cmp(&b.1));
    values[6] = commits[COMMITS / 2].1;
    note_memory("committed again")?;
    drive.unmount()?;
    values[7] = drive.mount()?.as_secs_f64() * 1e3;
    let mut chance = ChaCha8Rng::seed_from_u64(files);
    let took = take(&drive, || {
        for _ in 0..SAMPLE {
            fs::metadata(path(&at, chance.next_u64() % files))?;
        }
        Ok(())
    })?;
    (values[8], values[9]) = (took.wall_us(SAMPLE), took.cpu_us(SAMPLE));
    let start = Instant::now();
    let entries = list(&at.join("tree"))?;
    ensure!(entries == files + files.div_ceil(FOLDER), "{entries} entries");
    values[10] = each_us(start.elapsed(), entries);
    note_memory("listed")?;

    let flat = at.join("flat");
    fs::create_dir(&flat)?;
    let start = Instant::now();
    for n in 0..files {
        File::create(flat.join(format!("entry-{n:08}")))?;
    }
    drive.command_with(&["sync"])?;
    values[11] = each_us(start.elapsed(), files);
    let start = Instant::now();
    ensure!(list(&flat)? == files);
    values[12] = each_us(start.elapsed(), files);
    let start = Instant::now();
    fs::remove_dir_all(&flat)?;
    values[13] = each_us(start.elapsed(), files);
    note_memory("one folder of all")?;
    values[14] = memory;
    commit(ctx, &drive)?;
    drive.unmount()?;
    values[15] = folder_bytes(&drive.home) as f64 / files as f64;
    fs::remove_dir_all(&drive.home)?;
    Ok(Figures { files, values })
}

pub struct Sparse {
    pub places: u64,
    pub write_us: f64,
    pub commit_s: f64,
    pub read_s: f64,
    pub read: u64,
    pub memory_mib: u64,
}

/// A file of 1 TiB that is written here and there.
pub fn sparse_file(ctx: &Context, places: u64) -> Result<Sparse> {
    const SIZE: u64 = 1 << 40;
    const BLOCK: u64 = 4096;
    let drive = drive(ctx, "sparse")?;
    let name = drive.mountpoint.join("sparse");
    let file = File::create(&name)?;
    file.set_len(SIZE)?;
    let place = |n: u64| blake3_place(n) % (SIZE / BLOCK) * BLOCK;
    let start = Instant::now();
    for n in 0..places {
        file.write_all_at(&[n as u8 | 1; BLOCK as usize], place(n))?;
    }
    file.sync_all()?;
    let write_us = each_us(start.elapsed(), places);
    drop(file);
    let commit_s = commit(ctx, &drive)?.as_secs_f64();
    let mut memory = process(drive.pid()?)?.1;
    drive.unmount()?;
    drive.mount()?;
    let file = File::open(&name)?;
    ensure!(file.metadata()?.len() == SIZE);
    let read = places.min(SAMPLE);
    let start = Instant::now();
    for n in places - read..places {
        let mut block = [0; BLOCK as usize];
        file.read_exact_at(&mut block, place(n))?;
        ensure!(block == [n as u8 | 1; BLOCK as usize], "place {n}");
    }
    let read_s = start.elapsed().as_secs_f64();
    drop(file);
    memory = memory.max(process(drive.pid()?)?.1);
    drive.unmount()?;
    fs::remove_dir_all(&drive.home)?;
    Ok(Sparse { places, write_us, commit_s, read_s, read, memory_mib: memory as u64 })
}

/// Spread over everything, the same at each run; two of them fall together rarely, and then the later one stays.
fn blake3_place(n: u64) -> u64 {
    let digest = blake3::hash(&n.to_le_bytes());
    u64::from_le_bytes(digest.as_bytes()[..8].try_into().unwrap_or_default())
}

fn folder_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}
