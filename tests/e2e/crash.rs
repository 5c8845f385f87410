//! Kills and power cuts in the midst of a writing load.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use holdfast_tests::harness::{Context, Drive, InitOptions, Network, PowerDisk};
use holdfast_tests::ledger::{Crash, Ledger, Load, check};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde_json::json;

const WRITERS: usize = 3;
const ROUNDS: u64 = 20;
const ROUNDS_FULL: u64 = 100;
/// The product's promise for a mount after a crash.
const MOUNT_PROMISE: Duration = Duration::from_secs(5);

fn seed() -> u64 {
    // A run can be repeated with the seed that it printed.
    std::env::var("HOLDFAST_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        now.as_nanos() as u64 % 1_000_000
    })
}

fn rounds(ctx: &Context) -> u64 {
    if ctx.full { ROUNDS_FULL } else { ROUNDS }
}

/// Sealing and placing go on all the while, so that kills meet them too.
fn busy_drive(network: &Network) -> InitOptions {
    InitOptions {
        providers: network.addresses.clone(),
        config: json!({"limits": {"seal_after_idle_seconds": 1, "seal_after_seconds_max": 3}}),
        ..Default::default()
    }
}

fn pause(rng: &mut ChaCha8Rng) {
    std::thread::sleep(Duration::from_millis(300 + u64::from(rng.next_u32() % 1700)));
}

/// Starts with the folders of the writers.
fn make_folders(drive: &Drive) -> Result<Vec<Ledger>> {
    for n in 0..WRITERS {
        std::fs::create_dir(drive.mountpoint.join(format!("writer-{n}")))?;
    }
    std::fs::File::open(&drive.mountpoint)?.sync_all()?;
    Ok(vec![Ledger::default(); WRITERS])
}

/// Audits all writers' folders; returns how many paths there are and how many were rolled back.
fn audit(drive: &Drive, ledgers: &mut [Ledger], crash: Crash) -> Result<(usize, usize)> {
    let (mut paths, mut rolled_back) = (0, 0);
    let mut broken = Vec::new();
    for (n, ledger) in ledgers.iter_mut().enumerate() {
        let folder = format!("writer-{n}");
        let findings = check(ledger, &drive.mountpoint.join(&folder), crash)?;
        broken.extend(findings.broken.iter().map(|line| format!("{folder}/{line}")));
        paths += findings.paths;
        rolled_back += findings.rolled_back;
    }
    crate::ensure_same("promises that were broken", &broken)?;
    Ok((paths, rolled_back))
}

pub fn kill_9(ctx: &Context) -> Result<()> {
    let seed = seed();
    ctx.note(format!("seed {seed}"));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let network = Network::start(ctx, 3)?;
    let drive = Drive::init(ctx, "drive", &busy_drive(&network))?;
    drive.mount()?;
    let mut ledgers = make_folders(&drive)?;
    let mut slowest = Duration::ZERO;
    let mut operations = 0;
    for round in 0..rounds(ctx) {
        let load = Load::start(&drive.mountpoint, ledgers, rng.next_u64());
        pause(&mut rng);
        drive.kill()?;
        let (books, stats, _) = load.finish();
        ledgers = books;
        operations += stats.operations;
        let took = drive.mount().with_context(|| format!("mounting after kill {round}"))?;
        slowest = slowest.max(took);
        let (paths, _) = audit(&drive, &mut ledgers, Crash::Process)
            .with_context(|| format!("after kill {round} of seed {seed}\n{}", drive.daemon_log()))?;
        drive.verify(false).with_context(|| format!("after kill {round} of seed {seed}"))?;
        if round % 5 == 4 {
            ctx.note(format!("{} kills: {operations} operations, {paths} paths right", round + 1));
        }
    }
    ctx.note(format!("the slowest mount took {:.2} s", slowest.as_secs_f64()));
    ensure!(slowest < MOUNT_PROMISE, "a mount took {:.1} s", slowest.as_secs_f64());
    drive.unmount()?;
    Ok(())
}

/// The power goes while the load runs, and comes back; the drive is mounted again.
fn cut(ctx: &Context, disk: &PowerDisk, drive: &Drive, load: Load, seed: u64) -> Result<(Vec<Ledger>, u64)> {
    disk.client.send("freeze")?;
    drive.kill()?;
    let (ledgers, stats, _) = load.finish();
    let told = disk.client.send(&format!("cut {seed}"))?;
    ctx.note(format!("cut {seed} after {} operations, {} syncs: {told}", stats.operations, stats.syncs));
    let dropped = told
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("pages_dropped=")?.parse::<u64>().ok())
        .sum();
    Ok((ledgers, dropped))
}

pub fn power_cut(ctx: &Context) -> Result<()> {
    let seed = seed();
    ctx.note(format!("seed {seed}"));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let network = Network::start(ctx, 3)?;
    let disk = PowerDisk::start(ctx, false)?;
    let drive = Drive::init_at(ctx, "drive", disk.mountpoint.join("home"), &busy_drive(&network))?;
    drive.mount()?;
    let mut ledgers = make_folders(&drive)?;
    let (mut dropped, mut rolled_back, mut slowest) = (0, 0, Duration::ZERO);
    for round in 0..rounds(ctx) {
        let load = Load::start(&drive.mountpoint, ledgers, rng.next_u64());
        pause(&mut rng);
        let (books, pages) = cut(ctx, &disk, &drive, load, seed + round)?;
        ledgers = books;
        dropped += pages;
        let place = || format!("after cut {round}, seed {}", seed + round);
        slowest = slowest.max(drive.mount().with_context(place)?);
        let (_, rolled) = audit(&drive, &mut ledgers, Crash::Power)
            .with_context(|| format!("{}\n{}", place(), drive.daemon_log()))?;
        rolled_back += rolled;
        drive.verify(false).with_context(place)?;
    }
    ctx.note(format!(
        "{dropped} pages were lost, {rolled_back} paths are older than asked for, none older than synced; \
         the slowest mount took {:.2} s",
        slowest.as_secs_f64()
    ));
    ensure!(dropped > 0 && rolled_back > 0, "the cuts took nothing: they show nothing");
    ensure!(slowest < MOUNT_PROMISE, "a mount took {:.1} s", slowest.as_secs_f64());
    drive.unmount()?;
    disk.quit()
}

/// The same loop over a disk whose fsync is a no-op must fail; here, that failure is what is asked for.
pub fn lying_fsync(ctx: &Context) -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let network = Network::start(ctx, 3)?;
    let disk = PowerDisk::start(ctx, true)?;
    let drive = Drive::init_at(ctx, "drive", disk.mountpoint.join("home"), &busy_drive(&network))?;
    drive.mount()?;
    let mut ledgers = make_folders(&drive)?;
    // The start is kept, so that a loss is seen as a loss and not as a home that is not there.
    drive.terminate()?;
    drive.drop_mount()?;
    disk.client.send("sync")?;
    drive.mount()?;
    for round in 0..5 {
        let load = Load::start(&drive.mountpoint, ledgers, rng.next_u64());
        std::thread::sleep(Duration::from_secs(2));
        // Seeds divisible by five drop all that may be dropped.
        let (books, _) = cut(ctx, &disk, &drive, load, round * 5)?;
        ledgers = books;
        if let Err(error) = drive.mount() {
            ctx.note(format!("noticed: the drive does not mount: {error}"));
            return Ok(());
        }
        if let Err(error) = audit(&drive, &mut ledgers, Crash::Power) {
            let text = format!("{error:#}");
            ctx.note(format!("noticed: {}", text.lines().take(3).collect::<Vec<_>>().join(" ")));
            return Ok(());
        }
    }
    bail!("fsync did nothing and no loss was noticed: the power-cut test is blind")
}
