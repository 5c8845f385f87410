//! What is done on each file system.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::harness::{Context, run_ok};
use holdfast_tests::ledger::stream;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

const LONG: Duration = Duration::from_secs(900);
const SMALL_FILE: usize = 4096;

#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub tree_files: usize,
    pub small_files: usize,
    pub stream_bytes: u64,
    pub random_operations: usize,
    pub synced_writes: usize,
    /// Of the copy beside which single writes are timed.
    pub copy_bytes: u64,
}

impl Sizes {
    pub fn whole() -> Sizes {
        Sizes {
            tree_files: 7_500,
            small_files: 10_000,
            stream_bytes: 512 << 20,
            random_operations: 20_000,
            synced_writes: 1_000,
            copy_bytes: 4 << 30,
        }
    }

    pub fn quick() -> Sizes {
        Sizes {
            tree_files: 750,
            small_files: 1_000,
            stream_bytes: 64 << 20,
            random_operations: 2_000,
            synced_writes: 100,
            copy_bytes: 256 << 20,
        }
    }
}

/// Made once, on the bare disk.
pub struct Input {
    archive: PathBuf,
    repository: PathBuf,
}

/// A source tree's shape: many small texts in nested folders, as an archive and as a repository.
pub fn prepare(ctx: &Context, sizes: &Sizes) -> Result<Input> {
    let tree = ctx.dir.join("tree");
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for number in 0..sizes.tree_files {
        let folder = tree.join(format!("part-{:02}/unit-{:03}", number % 17, number % 251));
        std::fs::create_dir_all(&folder)?;
        let len = 200
            + (rng.next_u32() % 8_000) as usize * usize::from(number % 3 != 0)
            + (rng.next_u32() % 2_000) as usize;
        std::fs::write(folder.join(format!("source-{number}.rs")), stream(number as u64, len))?;
    }
    let archive = ctx.dir.join("tree.tar");
    run_ok(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&ctx.dir).arg("tree"), LONG)?;
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command
            .arg("-C")
            .arg(&tree)
            .args(["-c", "user.name=bench", "-c", "user.email=bench@localhost"])
            .args(words);
        run_ok(&mut command, LONG)
    };
    git(&["init", "-q", "-b", "main"])?;
    git(&["add", "-A"])?;
    git(&["commit", "-q", "-m", "All of it"])?;
    Ok(Input { archive, repository: tree })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    Untar,
    GitClone,
    GitStatus,
    ListLong,
    RemoveTree,
    SmallCreate,
    SmallStat,
    SmallRead,
    SmallRename,
    SmallUnlink,
    SequentialWrite,
    SequentialRead,
    RandomRead,
    RandomWrite,
    SyncedWrite,
    Sqlite,
    Restic,
}

impl Workload {
    pub const ALL: &[Workload] = &[
        Workload::Untar,
        Workload::GitClone,
        Workload::GitStatus,
        Workload::ListLong,
        Workload::RemoveTree,
        Workload::SmallCreate,
        Workload::SmallStat,
        Workload::SmallRead,
        Workload::SmallRename,
        Workload::SmallUnlink,
        Workload::SequentialWrite,
        Workload::SequentialRead,
        Workload::RandomRead,
        Workload::RandomWrite,
        Workload::SyncedWrite,
        Workload::Sqlite,
        Workload::Restic,
    ];

    /// The program that it takes, which may not be there.
    pub fn program(self) -> Option<&'static str> {
        match self {
            Workload::Sqlite => Some("sqlite3"),
            Workload::Restic => Some("restic"),
            _ => None,
        }
    }

    pub fn name(self, sizes: &Sizes) -> String {
        let (small, mib) = (sizes.small_files, sizes.stream_bytes >> 20);
        match self {
            Workload::Untar => format!("untar {} files", sizes.tree_files),
            Workload::GitClone => "git clone of them".into(),
            Workload::GitStatus => "git status, 5 times".into(),
            Workload::ListLong => "ls -lR of them".into(),
            Workload::RemoveTree => "rm -r of them".into(),
            Workload::SmallCreate => format!("create {small} files of 4 KiB"),
            Workload::SmallStat => format!("stat {small} files"),
            Workload::SmallRead => format!("read {small} files"),
            Workload::SmallRename => format!("rename {small} files"),
            Workload::SmallUnlink => format!("unlink {small} files"),
            Workload::SequentialWrite => format!("write {mib} MiB in order"),
            Workload::SequentialRead => format!("read {mib} MiB in order"),
            Workload::RandomRead => format!("{} random reads of 4 KiB", sizes.random_operations),
            Workload::RandomWrite => format!("{} random writes of 4 KiB", sizes.random_operations),
            Workload::SyncedWrite => format!("{} writes of 4 KiB, each with fsync", sizes.synced_writes),
            Workload::Sqlite => format!("{} SQLite transactions, synchronous=FULL", sizes.synced_writes),
            Workload::Restic => "restic backup of the tree into it".into(),
        }
    }

    pub fn writes(self) -> bool {
        use Workload::*;
        !matches!(self, GitStatus | ListLong | SmallStat | SmallRead | SequentialRead | RandomRead)
    }

    /// What must be there, and what must not be in the page cache.
    pub fn before(self, dir: &Path, _input: &Input, sizes: &Sizes) -> Result<()> {
        match self {
            Workload::SequentialRead | Workload::RandomRead => forget(&dir.join("stream")),
            Workload::SmallRead => each_small(dir, sizes, "", forget),
            _ => Ok(()),
        }
    }

    pub fn run(self, dir: &Path, input: &Input, sizes: &Sizes) -> Result<()> {
        let file = dir.join("stream");
        match self {
            Workload::Untar => untar(&dir.join("untar"), input),
            Workload::GitClone => {
                let mut command = Command::new("git");
                command.args(["clone", "-q", "--no-hardlinks"]).arg(&input.repository).arg(dir.join("clone"));
                run_ok(&mut command, LONG).map(drop)
            }
            Workload::GitStatus => {
                for _ in 0..5 {
                    let mut command = Command::new("git");
                    command.arg("-C").arg(dir.join("clone")).args(["status", "--porcelain"]);
                    ensure!(run_ok(&mut command, LONG)?.stdout.is_empty(), "git status is not clean");
                }
                Ok(())
            }
            Workload::ListLong => {
                run_ok(Command::new("ls").arg("-lR").arg(dir.join("untar")), LONG).map(drop)
            }
            Workload::RemoveTree => {
                run_ok(Command::new("rm").arg("-r").arg(dir.join("untar")), LONG).map(drop)
            }
            Workload::SmallCreate => create_small(dir, sizes),
            Workload::SmallStat => {
                each_small(dir, sizes, "", |path| Ok(path.symlink_metadata().map(drop)?))
            }
            Workload::SmallRead => each_small(dir, sizes, "", |path| Ok(std::fs::read(path).map(drop)?)),
            Workload::SmallRename => {
                each_small(dir, sizes, "", |path| Ok(std::fs::rename(path, path.with_extension("new"))?))
            }
            Workload::SmallUnlink => each_small(dir, sizes, ".new", |path| Ok(std::fs::remove_file(path)?)),
            Workload::SequentialWrite => write_random(&file, sizes.stream_bytes),
            Workload::SequentialRead => read_all(&file),
            Workload::RandomRead => random(&file, sizes, |file, at, page| Ok(file.read_exact_at(page, at)?)),
            Workload::RandomWrite => random(&file, sizes, |file, at, page| Ok(file.write_all_at(page, at)?)),
            Workload::SyncedWrite => {
                let file = File::create(dir.join("journal"))?;
                for number in 0..sizes.synced_writes {
                    file.write_all_at(&[number as u8; SMALL_FILE], (number * SMALL_FILE) as u64)?;
                    file.sync_data()?;
                }
                Ok(())
            }
            Workload::Sqlite => sqlite(&dir.join("database"), sizes),
            Workload::Restic => restic(&dir.join("restic"), input),
        }
    }
}

pub fn untar(into: &Path, input: &Input) -> Result<()> {
    std::fs::create_dir_all(into)?;
    run_ok(Command::new("tar").arg("-xf").arg(&input.archive).arg("-C").arg(into), LONG).map(drop)
}

/// One transaction after the other, as a program makes them that may lose none.
fn sqlite(path: &Path, sizes: &Sizes) -> Result<()> {
    let mut script =
        String::from("PRAGMA synchronous=FULL; CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);\n");
    for number in 0..sizes.synced_writes {
        script += &format!("INSERT INTO t VALUES({number}, '{number:0>200}');\n");
    }
    let mut shell =
        Command::new("sqlite3").arg("-bail").arg(path).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    shell.stdin.take().context("no input")?.write_all(script.as_bytes())?;
    ensure!(shell.wait()?.success(), "sqlite3 failed");
    Ok(())
}

fn restic(repository: &Path, input: &Input) -> Result<()> {
    let restic = |words: &[&str]| {
        let mut command = Command::new("restic");
        command.env("RESTIC_PASSWORD", "only for the bench").arg("--no-cache").arg("-q");
        run_ok(command.arg("-r").arg(repository).args(words), LONG)
    };
    restic(&["init"])?;
    restic(&["backup", &input.repository.to_string_lossy()]).map(drop)
}

/// How long a 4 KiB write with fsync takes, each, in seconds and in order, while a file is copied beside it.
pub fn latencies(dir: &Path, copy_bytes: u64) -> Result<Vec<f64>> {
    let busy = dir.join("beside");
    let file = File::create(dir.join("latency"))?;
    let mut times = Vec::new();
    std::thread::scope(|scope| -> Result<()> {
        let copy = scope.spawn(|| write_random(&busy, copy_bytes));
        while !copy.is_finished() || times.is_empty() {
            let begun = std::time::Instant::now();
            file.write_all_at(&[1; SMALL_FILE], (times.len() * SMALL_FILE) as u64)?;
            file.sync_data()?;
            times.push(begun.elapsed().as_secs_f64());
        }
        copy.join().map_err(|_| anyhow::anyhow!("the copy panicked"))?
    })?;
    std::fs::remove_file(&busy)?;
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn small(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("small/{:02}/{number}", number % 100))
}

fn create_small(dir: &Path, sizes: &Sizes) -> Result<()> {
    for folder in 0..100 {
        std::fs::create_dir_all(dir.join(format!("small/{folder:02}")))?;
    }
    for number in 0..sizes.small_files {
        std::fs::write(small(dir, number), [number as u8; SMALL_FILE])?;
    }
    Ok(())
}

fn each_small(dir: &Path, sizes: &Sizes, suffix: &str, work: impl Fn(&Path) -> Result<()>) -> Result<()> {
    for number in 0..sizes.small_files {
        let mut path = small(dir, number).into_os_string();
        path.push(suffix);
        work(Path::new(&path)).with_context(|| format!("small file {number}"))?;
    }
    Ok(())
}

/// Bytes that no compression makes smaller, with a final fsync.
pub fn write_random(path: &Path, len: u64) -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut buffer = vec![0; 1 << 20];
    rng.fill_bytes(&mut buffer);
    let mut file = File::create(path)?;
    for number in 0..len / buffer.len() as u64 {
        // Making each MiB anew would measure the generator; a changed head keeps blocks from being equal.
        for start in (0..buffer.len()).step_by(4096) {
            buffer[start..start + 8].copy_from_slice(&(number ^ ((start as u64) << 24)).to_le_bytes());
        }
        file.write_all(&buffer)?;
    }
    file.sync_all()?;
    Ok(())
}

pub fn read_all(path: &Path) -> Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

fn random(path: &Path, sizes: &Sizes, work: impl Fn(&File, u64, &mut [u8]) -> Result<()>) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut page = vec![7; SMALL_FILE];
    for _ in 0..sizes.random_operations {
        let at = rng.next_u64() % (sizes.stream_bytes / SMALL_FILE as u64) * SMALL_FILE as u64;
        work(&file, at, &mut page)?;
    }
    file.sync_all()?;
    Ok(())
}

/// Out of the page cache, so that the next read asks the file system.
fn forget(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    // SAFETY: plain system call on an open descriptor.
    let result = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    ensure!(result == 0, "posix_fadvise: {result}");
    Ok(())
}
