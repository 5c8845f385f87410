//! How long somebody waits for something small while something large is under way: beside a copy, and beside the drive's own work in the background.
//!
//! Rounds of both sides alternate, since the disk's other users come and go; what counts is the ratio within a round.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use holdfast_tests::harness::{Context, Drive, InitOptions, Network};
use holdfast_tests::measure::measure;
use serde_json::json;

use super::{LONG, Place, workloads};

const ROUNDS: usize = 3;
/// How long operations are timed beside the background, and without it.
const TIMED: Duration = Duration::from_secs(10);
/// Of data that the background has to seal, pack, name and place meanwhile, for each second.
const BACKGROUND_BYTES_A_SECOND: u64 = 64 << 20;
const SMALL_FILE: usize = 4096;

/// Seconds, in ascending order.
struct Times(Vec<f64>);

impl Times {
    fn new(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        Times(seconds)
    }

    /// Milliseconds that this share of them does not exceed.
    fn at(&self, share: f64) -> f64 {
        let nth = (self.0.len().saturating_sub(1) as f64 * share).round() as usize;
        self.0.get(nth).copied().unwrap_or_default() * 1e3
    }
}

/// Both tables.
pub fn run(ctx: &Context, copy_bytes: u64) -> Result<String> {
    let network = Network::start(ctx, 3)?;
    // Data is not left alone for long, so that there is background while somebody works.
    let config = json!({"limits": {"seal_after_seconds_max": 2}});
    let options = InitOptions { providers: network.addresses.clone(), config, ..Default::default() };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    let pids = vec![drive.pid()?];
    let native = Place { name: "native", dir: ctx.folder("native")?, pids: Vec::new(), drive: None };
    let holdfast =
        Place { name: "Holdfast", dir: drive.mountpoint.clone(), pids, drive: Some(drive.clone()) };
    let copies = beside_a_copy(ctx, &native, &holdfast, copy_bytes)?;
    let background = beside_the_background(ctx, &holdfast, &drive)?;
    drive.unmount()?;
    Ok(format!("{copies}\n{background}"))
}

fn beside_a_copy(ctx: &Context, native: &Place, holdfast: &Place, copy_bytes: u64) -> Result<String> {
    let mut out = format!(
        "| 4 KiB write with fsync beside a copy of {} MiB | writes | p50, ms | p99, ms | longest, ms | p99 / native |\n\
         |---|---|---|---|---|---|\n",
        copy_bytes >> 20
    );
    for round in 1..=ROUNDS {
        let mut of_native = 0.0;
        for place in [native, holdfast] {
            let dir = place.dir.join("bench");
            std::fs::create_dir_all(&dir)?;
            place.settle()?;
            if let Some(drive) = &place.drive {
                // What the copy before left to seal and to place is not this one's.
                drive.sync_wait(LONG)?;
            }
            let times = Times::new(workloads::latencies(&dir, copy_bytes)?);
            let (p50, p99, most) = (times.at(0.5), times.at(0.99), times.at(1.0));
            if place.drive.is_none() {
                of_native = p99;
            }
            let row = format!(
                "| {}, round {round} | {} | {p50:.1} | {p99:.1} | {most:.1} | {:.2} |",
                place.name,
                times.0.len(),
                p99 / of_native
            );
            ctx.note(row.clone());
            writeln!(out, "{row}")?;
        }
    }
    Ok(out)
}

fn beside_the_background(ctx: &Context, place: &Place, drive: &Drive) -> Result<String> {
    let mut out = String::from(
        "| foreground on Holdfast | operations | p50, ms | p99, ms | longest, ms | CPU of the daemon, s | p99 / without |\n\
         |---|---|---|---|---|---|---|\n",
    );
    let dir = place.dir.join("bench");
    for round in 1..=ROUNDS {
        let mut without = [0.0; 2];
        for busy in [false, true] {
            drive.sync_wait(LONG)?;
            if busy {
                workloads::write_random(&dir.join("bulk"), BACKGROUND_BYTES_A_SECOND * TIMED.as_secs())?;
            }
            let mut times = None;
            let cost = measure(&place.pids, || {
                times = Some(foreground(&dir)?);
                Ok(())
            })?;
            let Some(times) = times else { continue };
            for ((what, times), without) in
                ["small file", "write with fsync"].into_iter().zip(times).zip(&mut without)
            {
                let p99 = times.at(0.99);
                if !busy {
                    *without = p99;
                }
                let row = format!(
                    "| {what}, {}, round {round} | {} | {:.2} | {p99:.2} | {:.1} | {:.1} | {:.2} |",
                    if busy { "with seal, pack, CommP" } else { "without" },
                    times.0.len(),
                    times.at(0.5),
                    times.at(1.0),
                    cost.cpu_server,
                    p99 / *without
                );
                ctx.note(row.clone());
                writeln!(out, "{row}")?;
            }
            let _ = std::fs::remove_file(dir.join("bulk"));
        }
    }
    Ok(out)
}

/// A small file made, read, renamed and removed, as one; and a synced write, in turn.
fn foreground(dir: &Path) -> Result<[Times; 2]> {
    use std::os::unix::fs::FileExt;
    let (mut small, mut synced) = (Vec::new(), Vec::new());
    let file = std::fs::File::create(dir.join("synced"))?;
    let until = Instant::now() + TIMED;
    while Instant::now() < until {
        let (name, new) = (dir.join("small"), dir.join("renamed"));
        let begun = Instant::now();
        std::fs::write(&name, [small.len() as u8; SMALL_FILE])?;
        std::fs::read(&name)?;
        std::fs::rename(&name, &new)?;
        std::fs::remove_file(&new)?;
        small.push(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        file.write_all_at(&[1; SMALL_FILE], (synced.len() % 256 * SMALL_FILE) as u64)?;
        file.sync_data()?;
        synced.push(begun.elapsed().as_secs_f64());
        // Somebody at work, not a test of how much goes.
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok([Times::new(small), Times::new(synced)])
}
