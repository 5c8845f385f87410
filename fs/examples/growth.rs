//! What a drive costs as it grows, without the kernel in between: on a busy machine a mount's times are mostly those of its threads' turns.
//!
//!     growth FOLDER FILES... [--sparse PLACES]
//!
//! For each number of files a new drive in FOLDER: files of 100 bytes, a thousand to a folder, created, committed, a hundred of them changed and committed
//! again, five times; the drive closed and opened; two thousand files looked up, all listed, a folder of all emptied. Prints a row of a Markdown table for each
//! drive; CPU times are the process's, memory is the most that it ever had resident, so that each size needs a process of its own to be true. The keys are
//! constants: nothing is to be kept in such a drive.

use std::path::Path;
use std::sync::Arc;

use holdfast_content::keys::Mnemonic;
use holdfast_content::retrieve::NoRetriever;
use holdfast_fs::drive::{Ambient, Drive, DriveOptions};
use holdfast_fs::rows::{Ino, ROOT_INO};
use holdfast_fs::vfs::{Caller, NewNode, SetAttr, Vfs, VfsOptions, WriteMode};
use holdfast_store::{Clock, StoreKeys, SystemClock};

/// As in the program (`daemon/src/memory.rs`), which is what is to be known of.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

// SAFETY: read as a pointer to a C string, which the first word of a reference to a slice is; no other symbol has the name.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static SETTINGS: &[u8] = b"narenas:4,dirty_decay_ms:500,muzzy_decay_ms:0\0";

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const FOLDER: u64 = 1000;
const BYTES: usize = 100;
const CHANGED: u64 = 100;
const LOOKED_UP: u64 = 2000;

fn open(home: &Path) -> Outcome<Drive> {
    let keys = Arc::new(Mnemonic::from_entropy([9; 32]).root_key().generation(1).keys());
    let options = DriveOptions::default().with_memory(DriveOptions::MEMORY_BYTES_DEFAULT);
    let vfs = VfsOptions::default().with_memory(DriveOptions::MEMORY_BYTES_DEFAULT);
    let store_keys = StoreKeys { log: [1; 32], index: [2; 32] };
    Ok(Drive::open(home, keys, store_keys, options, vfs, Arc::new(NoRetriever), Ambient::system())?)
}

/// CPU seconds of this process, and the most memory that it had, in MiB.
fn process() -> Outcome<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit_once(") ").ok_or("stat")?.1.split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    let status = std::fs::read_to_string("/proc/self/status")?;
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("VmHWM")?;
    let kib: f64 = most.trim().trim_end_matches(" kB").parse()?;
    Ok(((ticks(11) + ticks(12)) / 100.0, kib / 1024.0))
}

/// CPU seconds of the index's compaction. It runs when it gets the time, which may be in another phase than the one that it is for.
fn compaction() -> f64 {
    let seconds = |task: std::path::PathBuf| {
        let stat = std::fs::read_to_string(task.join("stat")).ok()?;
        let (name, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        name.ends_with("(rocksdb:low").then(|| (ticks(11) + ticks(12)) / 100.0)
    };
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.filter_map(|task| seconds(task.path())).sum()
}

/// Wall and CPU microseconds of each of `times`.
fn timed(what: &str, times: u64, work: impl FnOnce() -> Outcome<()>) -> Outcome<(f64, f64)> {
    let clock = SystemClock::new();
    let (start, before, compacted) = (clock.now(), process()?.0, compaction());
    work()?;
    let (wall, (cpu, memory)) = ((clock.now() - start).as_secs_f64(), process()?);
    let (all, compacted) = (cpu - before, compaction() - compacted);
    eprintln!("{what}: {wall:.2} s, {all:.2} s of CPU ({compacted:.2} compaction), {memory:.0} MiB at most");
    Ok((wall * 1e6 / times as f64, (cpu - before) * 1e6 / times as f64))
}

/// Says how long the calls took of which these are the microseconds.
fn tell(what: &str, mut each: Vec<u32>) {
    each.sort_unstable();
    let at =
        |share: f64| each.get((each.len() as f64 * share) as usize).or(each.last()).copied().unwrap_or(0);
    let (half, most, nearly, max) = (at(0.5), at(0.99), at(0.999), at(1.0));
    eprintln!("{what}, µs a call: p50 {half}, p99 {most}, p99.9 {nearly}, at most {max}");
}

fn file(vfs: &Vfs, parent: Ino, name: &str, data: &[u8]) -> Outcome<Ino> {
    let ino = vfs.create(&Caller::root(), parent, name.as_bytes(), &NewNode::file(0o644, 0))?.ino;
    if !data.is_empty() {
        vfs.write(ino, 0, data, WriteMode::default())?;
    }
    Ok(ino)
}

fn name(n: u64) -> String {
    format!("file-{n:08}")
}

fn look_up(vfs: &Vfs, n: u64) -> Outcome<Ino> {
    let parent = vfs.lookup(ROOT_INO, format!("{:05}", n / FOLDER).as_bytes())?.ino;
    Ok(vfs.lookup(parent, name(n).as_bytes())?.ino)
}

fn list(vfs: &Vfs, dir: Ino, mut each: impl FnMut(Ino, &[u8]) -> Outcome<()>) -> Outcome<u64> {
    let (mut cookie, mut count) = (0, 0);
    loop {
        let page = vfs.readdir(dir, cookie, 100)?;
        let Some(last) = page.last() else { return Ok(count) };
        cookie = last.cookie;
        for entry in page.iter().filter(|entry| entry.name != "." && entry.name != "..") {
            count += 1;
            each(entry.ino, &entry.name)?;
        }
    }
}

fn many_files(home: &Path, files: u64) -> Outcome<()> {
    let mut row = format!("| {files} |");
    let mut put = |(wall, cpu): (f64, f64)| row.push_str(&format!(" {wall:.1} ({cpu:.1}) |"));
    let drive = open(home)?;
    let clock = SystemClock::new();
    let mut each = Vec::with_capacity(files as usize);
    put(timed("create", files, || {
        let mut parent = ROOT_INO;
        for n in 0..files {
            if n % FOLDER == 0 {
                let folder = format!("{:05}", n / FOLDER);
                let new = NewNode::dir(0o755, 0);
                parent = drive.vfs().create(&Caller::root(), ROOT_INO, folder.as_bytes(), &new)?.ino;
            }
            let start = clock.now();
            file(drive.vfs(), parent, &name(n), &[n as u8; BYTES])?;
            each.push((clock.now() - start).as_micros() as u32);
        }
        Ok(drive.sync_all()?)
    })?);
    tell("create", each);
    put(timed("first commit", files, || {
        drive.hurry();
        drive.seal()?.ok_or("no commit")?;
        Ok(())
    })?);
    let mut commits = Vec::new();
    for nth in 0..5 {
        for n in 0..CHANGED {
            let ino = look_up(drive.vfs(), (n * (files / CHANGED) + nth) % files)?;
            drive.vfs().write(ino, 0, &[!(n + nth) as u8; BYTES], WriteMode::default())?;
        }
        commits.push(timed("commit", 1000, || {
            drive.hurry();
            drive.seal()?.ok_or("no commit")?;
            Ok(())
        })?);
    }
    put(commits[0]);
    commits.sort_by(|a, b| a.1.total_cmp(&b.1));
    put(commits[2]);
    drive.close()?;
    let mut again = None;
    put(timed("open", 1000, || {
        again = Some(open(home)?);
        Ok(())
    })?);
    let drive = again.ok_or("not open")?;
    let mut chance = 88172645463325252u64;
    put(timed("look up", LOOKED_UP, || {
        for _ in 0..LOOKED_UP {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            look_up(drive.vfs(), chance % files)?;
        }
        Ok(())
    })?);
    put(timed("list", files, || {
        let mut seen = 0;
        let mut folders = Vec::new();
        list(drive.vfs(), ROOT_INO, |ino, _| {
            folders.push(ino);
            Ok(())
        })?;
        for folder in folders {
            seen += list(drive.vfs(), folder, |_, _| Ok(()))?;
        }
        if seen == files { Ok(()) } else { Err(format!("{seen} files").into()) }
    })?);
    let flat = drive.vfs().create(&Caller::root(), ROOT_INO, b"flat", &NewNode::dir(0o755, 0))?.ino;
    put(timed("one folder", files, || {
        for n in 0..files {
            file(drive.vfs(), flat, &name(n), &[])?;
        }
        Ok(())
    })?);
    put(timed("empty it", files, || {
        let emptied = list(drive.vfs(), flat, |ino, name| {
            drive.vfs().unlink(flat, name)?;
            // As the kernel does; what it knows stays in memory.
            drive.vfs().forget(ino);
            Ok(())
        })?;
        drive.vfs().rmdir(ROOT_INO, b"flat")?;
        if emptied == files { Ok(()) } else { Err(format!("{emptied} files").into()) }
    })?);
    timed("last commit", 1, || {
        drive.hurry();
        drive.seal()?;
        Ok(())
    })?;
    drive.close()?;
    println!("{row} {:.0} |", process()?.1);
    Ok(())
}

fn sparse_file(home: &Path, places: u64) -> Outcome<()> {
    const SIZE: u64 = 1 << 40;
    const BLOCK: u64 = 4096;
    let place = |n: u64| {
        let digest = blake3::hash(&n.to_le_bytes());
        digest.as_bytes().first_chunk().map_or(0, |head| u64::from_le_bytes(*head)) % (SIZE / BLOCK) * BLOCK
    };
    let block = |n: u64| [n as u8 | 1; BLOCK as usize];
    let drive = open(home)?;
    let ino = file(drive.vfs(), ROOT_INO, "sparse", &[])?;
    let set = SetAttr { size: Some(SIZE), ..Default::default() };
    drive.vfs().setattr(&Caller::root(), ino, &set)?;
    let wrote = timed("write here and there", places, || {
        for n in 0..places {
            drive.vfs().write(ino, place(n), &block(n), WriteMode::default())?;
        }
        Ok(())
    })?;
    let sealed = timed("commit", 1_000_000, || {
        drive.hurry();
        drive.seal()?.ok_or("no commit")?;
        Ok(())
    })?;
    drive.close()?;
    let drive = open(home)?;
    let read = timed("read back", LOOKED_UP, || {
        for n in places - LOOKED_UP.min(places)..places {
            let mut found = [0; BLOCK as usize];
            drive.vfs().read(ino, place(n), &mut found)?;
            if found != block(n) {
                return Err(format!("place {n}").into());
            }
        }
        Ok(())
    })?;
    drive.close()?;
    println!(
        "1 TiB, {places} places: {:.1} ({:.1}) µs a write, commit {:.1} ({:.1}) s, {:.1} ({:.1}) µs to read one back, {:.0} MiB at most",
        wrote.0,
        wrote.1,
        sealed.0,
        sealed.1,
        read.0,
        read.1,
        process()?.1
    );
    Ok(())
}

fn main() -> Outcome<()> {
    let mut words = std::env::args().skip(1);
    let folder =
        std::path::PathBuf::from(words.next().ok_or("usage: growth FOLDER FILES... [--sparse PLACES]")?);
    while let Some(word) = words.next() {
        let home = folder.join(format!("growth-{}", std::process::id()));
        std::fs::create_dir_all(&home)?;
        match word.as_str() {
            "--sparse" => sparse_file(&home, words.next().ok_or("how many places?")?.parse()?)?,
            files => many_files(&home, files.parse()?)?,
        }
        std::fs::remove_dir_all(&home)?;
    }
    Ok(())
}
