//! Placing over an uplink, and what it costs whoever works meanwhile.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use holdfast_tests::harness::{Context, Drive};

use crate::world::{LONG, World, median, row, write_file};

/// 200 Mbit/s.
const UPLINK_BITS: u64 = 200_000_000;
const SMALL_FILES: usize = 500;
const ROUNDS: usize = 5;

/// Creates, writes and lists small files, as a program that works on the drive does.
fn work(drive: &Drive, round: &str) -> Result<f64> {
    let dir = drive.mountpoint.join(format!("work-{round}"));
    std::fs::create_dir(&dir)?;
    let start = Instant::now();
    for n in 0..SMALL_FILES {
        std::fs::write(dir.join(format!("{n}")), [n as u8; 4096])?;
    }
    let seen = std::fs::read_dir(&dir)?.filter_map(|entry| entry.ok()?.metadata().ok()).count();
    let took = start.elapsed().as_secs_f64();
    anyhow::ensure!(seen == SMALL_FILES, "{seen} of {SMALL_FILES} files");
    Ok(took)
}

fn write_and_wait(drive: &Drive, path: &Path, bytes: u64, seed: u64) -> Result<()> {
    write_file(path, bytes, seed)?;
    drive.sync_wait(LONG).map(drop)
}

pub fn up_a_line(ctx: &Context) -> Result<()> {
    let bytes: u64 = if ctx.full { 1 << 30 } else { 256 << 20 };
    let mut world = World::new(ctx, 6)?;
    let here = world.internet.public()?;
    here.limit(UPLINK_BITS)?;
    here.enter()?;
    let drive = world.drive(ctx, "drive", 6, 2)?;
    write_and_wait(&drive, &drive.mountpoint.join("first"), 8 << 20, 1)?;
    let idle: Vec<f64> = (0..ROUNDS).map(|n| work(&drive, &format!("idle-{n}"))).collect::<Result<_>>()?;
    drive.sync_wait(LONG)?;
    let (start, before) = (Instant::now(), here.sent()?);
    write_file(&drive.mountpoint.join("film"), bytes, 2)?;
    let mut beside = Vec::new();
    for n in 0..ROUNDS {
        std::thread::sleep(std::time::Duration::from_secs(1));
        beside.push(work(&drive, &format!("beside-{n}"))?);
    }
    drive.sync_wait(LONG)?;
    let (took, sent) = (start.elapsed().as_secs_f64(), here.sent()? - before);
    let line = UPLINK_BITS as f64 / 8.0;
    let used = sent as f64 / took / line;
    row(
        &format!("placing {} MiB, three copies, over an uplink of 25 MB/s; the uplink", bytes >> 20),
        &format!("{:.1} MB/s on the wire, {:.1} s", sent as f64 / took / 1e6, took),
        &format!("{:.1} MB/s", line / 1e6),
        &format!("{used:.2}"),
    );
    row(
        "of what was sent, the data's three copies",
        &format!("{:.0} MB", 3.0 * bytes as f64 / 1e6),
        &format!("{:.0} MB", sent as f64 / 1e6),
        &format!("{:.3}", 3.0 * bytes as f64 / sent as f64),
    );
    let (idle, beside) = (median(idle), median(beside));
    row(
        &format!("{SMALL_FILES} small files made and listed, while that goes on; before it"),
        &format!("{:.0} ms", beside * 1e3),
        &format!("{:.0} ms", idle * 1e3),
        &format!("{:.2}", beside / idle),
    );
    drive.unmount().map(drop)
}
