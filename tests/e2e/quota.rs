//! A home folder smaller than the drive: copying is paced, reading brings the data back, what is pinned stays.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::compare::Tree;
use holdfast_tests::harness::{Context, Drive, InitOptions, Network, run, run_ok, wait_until};
use serde_json::{Value, json};

use crate::{ensure_same, inputs};

const MIB: u64 = 1 << 20;
const SYNC: Duration = Duration::from_secs(1200);

/// What the files below take on the disk.
pub fn folder_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// 600 MiB through a quota of 150 MiB (with --full: 5 GiB through 1 GiB): no error, the home stays within its quota, all of it is read back.
pub fn smaller_than_the_data(ctx: &Context) -> Result<()> {
    let (quota, files, large) =
        if ctx.full { (1024 * MIB, 48, 2048 * MIB) } else { (150 * MIB, 40, 200 * MIB) };
    let each = if ctx.full { 64 * MIB } else { 10 * MIB };
    let source = ctx.folder("source")?;
    inputs::random_files(&source.join("many"), files, each as usize, 1)?;
    inputs::random_files(&source.join("one"), 1, large as usize, 2)?;
    let tree = Tree::read(&source)?;
    let network = Network::start(ctx, 2)?;
    let options = InitOptions {
        survive: 1,
        providers: network.addresses.clone(),
        config: json!({"limits": {"quota_bytes": quota}}),
    };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    let (done, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watch = {
        let (done, most, home) = (done.clone(), most.clone(), drive.home.clone());
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(folder_bytes(&home), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(300));
            }
        })
    };
    let start = Instant::now();
    let copied = copy(&source, &drive.mountpoint);
    let took = start.elapsed().as_secs_f64();
    copied.with_context(|| format!("{}\n{}", drive.status_text(), drive.daemon_log()))?;
    let rate = tree.bytes as f64 / MIB as f64 / took;
    ctx.note(format!("{} MiB copied in {took:.1} s ({rate:.1} MiB/s)", tree.bytes / MIB));
    ctx.note(format!("sync --wait took {:.1} s", drive.sync_wait(SYNC)?.as_secs_f64()));
    let start = Instant::now();
    // The kernel's cache would answer otherwise.
    drive.unmount()?;
    drive.mount()?;
    ensure_same("read back", &tree.differences(&Tree::read(&drive.mountpoint)?))?;
    ctx.note(format!("all of it read in {:.1} s", start.elapsed().as_secs_f64()));
    done.store(true, Ordering::Relaxed);
    watch.join().ok().context("the watching thread")?;
    let most = most.load(Ordering::Relaxed);
    ctx.note(format!("the home folder held {} MiB at most, its quota is {} MiB", most / MIB, quota / MIB));
    // What is cut between two looks at the figures comes on top.
    ensure!(most <= quota + quota / 16, "the home folder held {} MiB", most / MIB);
    let local = drive.status()?["storage"]["pieces_bytes"].as_u64().context("pieces_bytes")?;
    ensure!(local < tree.bytes / 2, "{local} bytes of pieces are here: nothing was evicted");
    drive.verify(true)?;
    drive.unmount()?;
    Ok(())
}

/// As a person copies, times included.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for name in ["many", "one"] {
        run_ok(Command::new("cp").arg("-a").arg(from.join(name)).arg(to), SYNC)?;
    }
    Ok(())
}

fn local_bytes(drive: &Drive) -> Result<u64> {
    drive.status()?["storage"]["pieces_bytes"].as_u64().context("pieces_bytes")
}

/// `evict` refuses what is not safe and drops what is; a pinned folder stays, also through an eviction of everything, and comes back
/// where it was gone.
pub fn pinned(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 2)?;
    let options = InitOptions {
        survive: 1,
        providers: network.addresses.clone(),
        config: json!({"limits": {"seal_after_idle_seconds": 3600, "seal_after_seconds_max": 3600}}),
    };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    inputs::random_files(&drive.mountpoint.join("a"), 4, 3 << 20, 3)?;
    let (a, b) = (drive.mountpoint.join("a"), drive.mountpoint.join("b"));
    let (a_text, b_text) = (a.display().to_string(), b.display().to_string());
    let refused = drive.command_with(&["evict", "--json", &a_text])?;
    ensure!(refused.status.code() == Some(10), "data in no commit was given up: {refused:?}");
    drive.sync_wait(SYNC)?;
    inputs::random_files(&b, 4, 3 << 20, 4)?;
    drive.sync_wait(SYNC)?;
    let pin: Value = serde_json::from_str(&drive.command_with(&["pin", "--json", &a_text])?.stdout)?;
    ensure!(pin["missing_pieces"] == 0 && pin["pins"][0]["path"] == a_text, "{pin}");
    let evicted = drive.command_with(&["evict", "--json"])?;
    ensure!(evicted.status.code() == Some(10) && evicted.stdout.contains("pinned"), "{evicted:?}");
    let left = local_bytes(&drive)?;
    ensure!((12 * MIB..16 * MIB).contains(&left), "{left} bytes of pieces are here");
    for (code, said) in [(0, ""), (1, "is not pinned")] {
        let done = drive.command_with(&["unpin", &a_text])?;
        ensure!(done.status.code() == Some(code) && done.stderr.contains(said), "{done:?}");
    }
    let evicted = drive.command_with(&["evict", "--json", &a_text])?;
    ensure!(evicted.status.code() == Some(0), "{evicted:?}");
    ensure!(local_bytes(&drive)? < 2 * MIB, "{} bytes of pieces are here", local_bytes(&drive)?);
    // A program that only draws small pictures does not bring it all back; one that is here opens for it.
    let thumbnailer = ctx.dir.join("tumblerd");
    std::fs::copy("/bin/cat", &thumbnailer)?;
    let draw = |folder: &Path| run(Command::new(&thumbnailer).arg(folder.join("000/file-00000")), SYNC);
    let drawn = draw(&a)?;
    ensure!(!drawn.status.success() && drawn.stderr.contains("remote"), "{}", drawn.stderr);
    ensure!(local_bytes(&drive)? < 2 * MIB, "a thumbnail brought {} bytes", local_bytes(&drive)?);
    drive.command_with(&["pin", &b_text])?;
    let back = wait_until("the pinned folder being here", Duration::from_secs(60), || {
        Ok(local_bytes(&drive)? > 12 * MIB)
    });
    let drawn = draw(&b)?;
    ensure!(drawn.status.success(), "{}", drawn.stderr);
    ctx.note(format!("12 MiB came back in {:.1} s", back?.as_secs_f64()));
    drive.verify(true)?;
    drive.unmount()?;
    Ok(())
}
