//! Cold reads.

use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use holdfast_tests::harness::{Context, wait_until};
use holdfast_tests::{measure, raw};
use serde_json::json;

use crate::world::{LONG, World, make_cold, median, raw_server, read_through, row, tcp_copy, write_file};

/// Pairs of runs, of which the medians are compared.
const ROUNDS: usize = 3;
/// What leaves each of four providers: 80 Mbit/s.
const SLOW_BITS: u64 = 80_000_000;
const ROUND_TRIP: Duration = Duration::from_millis(40);
const FAR_READS: u64 = 150;
const CHUNK_BYTES: u64 = 256 << 10;
const READ_BYTES: usize = 64 << 10;
/// A group of pieces and some more, which stays in copies until there is enough of it for a stripe.
const STRIPED_BYTES: u64 = 272 << 20;
const GROUP_BYTES: u64 = 240 << 20;

fn mb_per_s(bytes: u64, seconds: f64) -> f64 {
    bytes as f64 / 1e6 / seconds
}

/// In order, from one provider, beside one libp2p stream and one TCP connection over the same wire.
pub fn beside_a_stream(ctx: &Context) -> Result<()> {
    let bytes: u64 = if ctx.full { 1 << 30 } else { 256 << 20 };
    let mut world = World::new(ctx, 1)?;
    let here = world.internet.public()?;
    here.enter()?;
    let drive = world.drive(ctx, "drive", 1, 0)?;
    let file = drive.mountpoint.join("film");
    write_file(&file, bytes, 1)?;
    drive.sync_wait(LONG)?;
    let (mut ours, mut raws, mut tcps, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        raws.push(raw::measure(bytes, raw_server(&world.hosts[0])?)?.wall);
        tcps.push(tcp_copy(&world.hosts[0], bytes)?.0);
        make_cold(&drive)?;
        let pids = [drive.pid()?, world.providers[0].process.pid()];
        let cost = measure::measure(&pids, || read_through(&file).map(drop))?;
        ours.push(cost.wall);
        cpu.push(cost.cpu());
    }
    let (ours, raw, tcp) = (median(ours), median(raws), median(tcps));
    let what = format!("cold read of {} MiB in order, one provider; a libp2p stream", bytes >> 20);
    let figure = format!("{:.0} MB/s ({:.2} CPU s, both ends)", mb_per_s(bytes, ours), median(cpu));
    row(&what, &figure, &format!("{:.0} MB/s", mb_per_s(bytes, raw)), &format!("{:.2}", raw / ours));
    let beside = format!("{:.0} MB/s", mb_per_s(bytes, tcp));
    row("the same; a bare TCP connection", "", &beside, &format!("{:.2}", tcp / ours));
    drive.unmount().map(drop)
}

/// In order, from four providers whose lines are slow, and from one of them.
pub fn from_four(ctx: &Context) -> Result<()> {
    let bytes: u64 = if ctx.full { 256 << 20 } else { 64 << 20 };
    let mut world = World::new(ctx, 5)?;
    let here = world.internet.public()?;
    for host in &world.hosts {
        host.limit(SLOW_BITS)?;
    }
    here.enter()?;
    let mut took = Vec::new();
    for (name, providers) in [("one", 1), ("four", 4)] {
        let drive = world.drive(ctx, name, providers, providers as u8 - 1)?;
        let file = drive.mountpoint.join("film");
        write_file(&file, bytes, providers as u64)?;
        make_cold(&drive)?;
        took.push(read_through(&file)?);
        drive.unmount()?;
    }
    let striped = striped(ctx, &world)?;
    let (tcp, _) = tcp_copy(&world.hosts[0], bytes / 4)?;
    let (one, four, tcp) = (mb_per_s(bytes, took[0]), mb_per_s(bytes, took[1]), mb_per_s(bytes / 4, tcp));
    let what =
        format!("cold read of {} MiB in order, one provider of 10 MB/s; a bare TCP connection", bytes >> 20);
    row(&what, &format!("{one:.1} MB/s"), &format!("{tcp:.1} MB/s"), &format!("{:.2}", one / tcp));
    let ratio = format!("{:.2}", four / one);
    row("the same from four such; from one", &format!("{four:.1} MB/s"), &format!("{one:.1} MB/s"), &ratio);
    let what = format!(
        "cold read of {} MiB in order, kept as 4+1 stripes by five such; from one",
        STRIPED_BYTES >> 20
    );
    let (took, ratio) = (format!("{striped:.1} MB/s"), format!("{:.2}", striped / one));
    row(&what, &took, &format!("{one:.1} MB/s"), &ratio);
    Ok(())
}

/// MB a second of a file of which every piece is kept once, as a slot of a stripe.
fn striped(ctx: &Context, world: &World) -> Result<f64> {
    let config = json!({
        "policy": {"stripe_data_max": 4},
        "limits": {
            "audit_interval_seconds": 15,
            "seal_after_idle_seconds": 1,
            "stripe_after_seconds": 3,
            "surplus_grace_seconds": 3
        }
    });
    let drive = world.drive_with(ctx, "striped", 5, 1, config)?;
    let file = drive.mountpoint.join("film");
    write_file(&file, STRIPED_BYTES, 6)?;
    drive.sync_wait(LONG)?;
    let kept = || {
        let slots = (0..5).map(|n| ctx.dir.join(format!("provider-{n}/slots")));
        slots.map(|dir| folder_bytes(&dir)).sum::<u64>()
    };
    let before = kept();
    wait_until("stripes in the place of copies", LONG, || {
        let redundancy = &drive.status()?["redundancy"];
        let whole = redundancy["striped_bytes"].as_u64() >= Some(GROUP_BYTES);
        // A quarter more than the data, where copies are twice as much.
        Ok(whole && before.saturating_sub(kept()) > GROUP_BYTES / 2)
    })?;
    // What was not audited lately stays here.
    wait_until("audits of all slots", LONG, || Ok(drive.command_with(&["evict"])?.status.success()))?;
    make_cold(&drive)?;
    let took = read_through(&file)?;
    drive.unmount()?;
    Ok(mb_per_s(STRIPED_BYTES, took))
}

fn folder_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}

/// Here and there in a file, and in order, 40 ms away.
pub fn far_away(ctx: &Context) -> Result<()> {
    let mut world = World::new(ctx, 3)?;
    let here = world.internet.far(ROUND_TRIP)?;
    here.enter()?;
    let drive = world.drive(ctx, "drive", 3, 2)?;
    let file = drive.mountpoint.join("film");
    let chunks = FAR_READS + 8;
    write_file(&file, chunks * CHUNK_BYTES, 3)?;
    let large = drive.mountpoint.join("large");
    let bytes: u64 = if ctx.full { 256 << 20 } else { 64 << 20 };
    write_file(&large, bytes, 4)?;
    make_cold(&drive)?;
    let connects = (0..9).map(|_| tcp_copy(&world.hosts[0], 1).map(|(_, connected)| connected));
    let round_trip = median(connects.collect::<Result<Vec<f64>>>()?);
    let open = std::fs::File::open(&file)?;
    // SAFETY: a plain system call on a descriptor that is open.
    let advised = unsafe { libc::posix_fadvise(open.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
    ensure!(advised == 0, "posix_fadvise: {advised}");
    let (mut times, mut buffer) = (Vec::new(), vec![0; READ_BYTES]);
    for n in 0..FAR_READS + 1 {
        // Each chunk once, in an order that is none.
        let chunk = (n * 67 + 5) % 151;
        let start = Instant::now();
        open.read_exact_at(&mut buffer, chunk * CHUNK_BYTES + (chunk % 3) * READ_BYTES as u64)?;
        times.push(start.elapsed().as_secs_f64());
    }
    drop(open);
    // The first one connects.
    times.remove(0);
    times.sort_by(f64::total_cmp);
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    let figure = format!("p50 {:.1} ms, p99 {:.1} ms", p50 * 1e3, p99 * 1e3);
    let ratio = format!("p50 {:.2} round trips", p50 / round_trip);
    let beside = format!("{:.1} ms", round_trip * 1e3);
    row("random cold reads of 64 KiB, 40 ms away; a round trip (TCP connect)", &figure, &beside, &ratio);
    let took = read_through(&large)?;
    let (tcp, _) = tcp_copy(&world.hosts[0], bytes)?;
    let what = format!("cold read of {} MiB in order, 40 ms away; a bare TCP connection", bytes >> 20);
    let (ours, theirs) = (mb_per_s(bytes, took), mb_per_s(bytes, tcp));
    row(&what, &format!("{ours:.0} MB/s"), &format!("{theirs:.0} MB/s"), &format!("{:.2}", ours / theirs));
    drive.unmount().map(drop)
}
