//! How fast a drive is, against the bare disk and against gocryptfs, in one run on one machine.
//!
//! ```text
//! bench [--quick] [--dir DIR]                      prints a Markdown table; takes some minutes
//! bench --latency [--copy-mib N] [--dir DIR]       how long something small waits beside something large
//! ```
//!
//! The null file system (`null-fs`) forgets everything and costs what the way through the kernel costs; SQLite and restic
//! take part where they are installed.
//!
//! Wall time depends on what else the machine does, so ratios to the bare disk stand beside the times, and CPU time (of
//! the program, and of the file system's own process) beside both. "Staged" means: until the data survives a power cut;
//! "Placed": until it survives the loss of this machine and of two providers.

mod latency;
mod workloads;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use holdfast_tests::harness::{Context, Drive, InitOptions, Network, RestoreFrom, clean_up, run_ok};
use holdfast_tests::measure::{Cost, Table, measure};
use holdfast_tests::raw;
use serde_json::Value;
use workloads::{Sizes, Workload};

/// Measures a drive against the bare disk and gocryptfs, and prints a Markdown table.
#[derive(Parser)]
struct Args {
    /// Work in this folder (it should be on the disk that matters) [default: the build folder]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// A tenth of the work.
    #[arg(long)]
    quick: bool,
    /// Only how long something small waits: beside a large copy, and beside the drive's own work in the background.
    #[arg(long)]
    latency: bool,
    /// The size of that copy [default: 4096; with --quick 256]
    #[arg(long, requires = "latency")]
    copy_mib: Option<u64>,
    /// The other side of the raw stream's measurement.
    #[arg(long, hide = true, value_name = "IP")]
    serve_raw: Option<String>,
}

const LONG: Duration = Duration::from_secs(1800);

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(ip) = args.serve_raw {
        return raw::serve(&ip);
    }
    let base = match args.dir {
        Some(dir) => dir,
        None => std::env::current_exe()?.parent().context("no folder")?.to_owned(),
    };
    let dir = base.join(format!("bench-{}", std::process::id()));
    let ctx = Context::new(&dir, !args.quick)?;
    let sizes = if args.quick { Sizes::quick() } else { Sizes::whole() };
    let result = if args.latency {
        let copy_bytes = args.copy_mib.map_or(sizes.copy_bytes, |mib| mib << 20);
        latency::run(&ctx, copy_bytes).map(|tables| println!("\n{tables}"))
    } else {
        run(&ctx, &sizes)
    };
    clean_up(&dir);
    // A bare mountpoint is marked unwritable, which stands in the way of removing it.
    let _ = Command::new("chattr").args(["-R", "-i"]).arg(&dir).output();
    std::fs::remove_dir_all(&dir).context("removing the bench's folder")?;
    result
}

/// A folder on one of the file systems, what serves it, and how "safe on this disk" is asked for there.
struct Place {
    name: &'static str,
    dir: PathBuf,
    pids: Vec<u32>,
    drive: Option<Drive>,
}

impl Place {
    fn settle(&self) -> Result<()> {
        match &self.drive {
            Some(drive) => drive.command_with(&["sync"]).map(drop),
            None => run_ok(Command::new("sync").arg("-f").arg(&self.dir), LONG).map(drop),
        }
    }
}

fn run(ctx: &Context, sizes: &Sizes) -> Result<()> {
    let input = workloads::prepare(ctx, sizes)?;
    let network = Network::start(ctx, 3)?;
    let options = InitOptions { providers: network.addresses.clone(), ..Default::default() };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    let mut places =
        vec![Place { name: "native", dir: ctx.folder("native")?, pids: Vec::new(), drive: None }];
    places.extend(gocryptfs(ctx)?);
    places.push(null_fs(ctx)?);
    let holdfast = Place {
        name: "Holdfast",
        dir: drive.mountpoint.clone(),
        pids: vec![drive.pid()?],
        drive: Some(drive.clone()),
    };
    places.push(holdfast);

    let mut table = Table::new(places.iter().map(|place| place.name).collect());
    for workload in Workload::ALL {
        if let Some(program) =
            workload.program().filter(|p| Command::new(p).arg("--version").output().is_err())
        {
            ctx.note(format!("no {program} here: its row is left out"));
            continue;
        }
        let mut row = Vec::new();
        for place in &places {
            let cost = one(*workload, place, &input, sizes)?;
            ctx.note(format!("{:40} {:10} {cost}", workload.name(sizes), place.name));
            row.push(cost);
        }
        table.add(workload.name(sizes), row);
    }
    println!("\n{table}");
    println!("{}", beside(ctx, &places, sizes)?);
    println!("{}", placed(ctx, &drive, &network, &input, sizes)?);
    Ok(())
}

/// A workload's preparation is not measured; that the data is safe on the disk at its end is.
fn one(workload: Workload, place: &Place, input: &workloads::Input, sizes: &Sizes) -> Result<Cost> {
    let dir = place.dir.join("bench");
    std::fs::create_dir_all(&dir)?;
    workload.before(&dir, input, sizes)?;
    place.settle()?;
    measure(&place.pids, || {
        workload.run(&dir, input, sizes)?;
        if workload.writes() { place.settle() } else { Ok(()) }
    })
}

/// The null file system: what the way through the kernel costs by itself.
fn null_fs(ctx: &Context) -> Result<Place> {
    let program = std::env::current_exe()?.with_file_name("null-fs");
    let dir = ctx.folder("null")?;
    ctx.registry.mount(&dir)?;
    let mut command = Command::new(program);
    let process = holdfast_tests::harness::Process::start(
        command.arg(&dir),
        &ctx.dir.join("null-fs.log"),
        &ctx.registry,
    )?;
    let pid = process.pid();
    std::mem::forget(process);
    holdfast_tests::harness::wait_until("the null file system", Duration::from_secs(20), || {
        Ok(std::fs::read_to_string("/proc/self/mountinfo")?.contains(&*dir.to_string_lossy()))
    })?;
    Ok(Place { name: "null FUSE", dir, pids: vec![pid], drive: None })
}

/// What a program that must not lose a write waits for, while somebody copies a large file.
fn beside(ctx: &Context, places: &[Place], sizes: &Sizes) -> Result<String> {
    let mut out = format!(
        "| 4 KiB write with fsync beside a copy of {} MiB | writes | p50, ms | p99, ms | longest, ms |\n|---|---|---|---|---|\n",
        sizes.copy_bytes >> 20
    );
    for place in places.iter().filter(|place| place.name != "null FUSE") {
        place.settle()?;
        let times = workloads::latencies(&place.dir.join("bench"), sizes.copy_bytes)?;
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize] * 1e3;
        ctx.note(format!(
            "{}: {} synced writes beside a copy, p99 {:.1} ms",
            place.name,
            times.len(),
            at(0.99)
        ));
        let (p50, p99, most) = (at(0.5), at(0.99), at(1.0));
        out += &format!("| {} | {} | {p50:.1} | {p99:.1} | {most:.1} |\n", place.name, times.len());
    }
    Ok(out)
}

fn gocryptfs(ctx: &Context) -> Result<Option<Place>> {
    let found = Command::new("gocryptfs").arg("--version").output().is_ok();
    if !found {
        ctx.note("no gocryptfs here: its column is left out");
        return Ok(None);
    }
    let (cipher, plain, password) = (ctx.folder("cipher")?, ctx.folder("plain")?, ctx.dir.join("password"));
    std::fs::write(&password, "only for the bench")?;
    ctx.registry.mount(&plain)?;
    run_ok(Command::new("gocryptfs").args(["-init", "-q", "-passfile"]).arg(&password).arg(&cipher), LONG)?;
    let mut command = Command::new("gocryptfs");
    command.args(["-q", "-fg", "-passfile"]).arg(&password).arg(&cipher).arg(&plain);
    let process =
        holdfast_tests::harness::Process::start(&mut command, &ctx.dir.join("gocryptfs.log"), &ctx.registry)?;
    let pid = process.pid();
    // It serves until the end of the run, when everything that was started is ended.
    std::mem::forget(process);
    holdfast_tests::harness::wait_until("gocryptfs", Duration::from_secs(20), || {
        Ok(std::fs::read_to_string("/proc/self/mountinfo")?.contains(&*plain.to_string_lossy()))
    })?;
    Ok(Some(Place { name: "gocryptfs", dir: plain, pids: vec![pid], drive: None }))
}

/// The way to the providers and back, beside a bare stream between two processes.
fn placed(
    ctx: &Context,
    drive: &Drive,
    network: &Network,
    input: &workloads::Input,
    sizes: &Sizes,
) -> Result<String> {
    let mib = sizes.stream_bytes >> 20;
    let mut server = Command::new(std::env::current_exe()?);
    server.args(["--serve-raw", "127.0.0.1"]);
    let raw = raw::measure(sizes.stream_bytes, server)?;
    ctx.note(format!("raw stream: {mib} MiB in {:.2} s", raw.wall));
    drive.sync_wait(LONG)?;
    let providers: Vec<u32> = (1..=3).map(|number| network.pid(number)).collect::<Result<_>>()?;
    let pids = [&providers[..], &[drive.pid()?]].concat();
    let tree = drive.mountpoint.join("placed-tree");
    let untar = measure(&pids, || {
        workloads::untar(&tree, input)?;
        drive.sync_wait(LONG).map(drop)
    })?;
    ctx.note(format!("untar up to Placed: {untar}"));
    let file = drive.mountpoint.join("stream");
    workloads::write_random(&file, sizes.stream_bytes)?;
    let place = measure(&pids, || drive.sync_wait(LONG).map(drop))?;
    ctx.note(format!("place: {place}"));
    drive.unmount()?;
    let from = RestoreFrom { secrets: &drive.secrets, peers: &network.addresses[..1], config: Value::Null };
    let (restored, mounted) = Drive::restore(ctx, "restored", &from)?;
    let pids = [&providers[..], &[restored.pid()?]].concat();
    let fetch = measure(&pids, || workloads::read_all(&restored.mountpoint.join("stream")))?;
    ctx.note(format!("fetch: {fetch}"));
    restored.unmount()?;
    Ok(placed_table(sizes, &raw, &untar, &place, &fetch, mounted))
}

fn placed_table(
    sizes: &Sizes,
    raw: &Cost,
    untar: &Cost,
    place: &Cost,
    fetch: &Cost,
    mounted: Duration,
) -> String {
    let rate = |cost: &Cost, copies: u64| (sizes.stream_bytes * copies) as f64 / 1e6 / cost.wall;
    let mib = sizes.stream_bytes >> 20;
    let row = |what: String, cost: &Cost, copies: u64| {
        let rate = rate(cost, copies);
        format!(
            "| {what} | {:.2} | {rate:.0} | {:.2} | {:.2} |\n",
            cost.wall,
            cost.cpu(),
            raw_ratio(rate, raw, sizes)
        )
    };
    let mut out = String::from(
        "| To providers and back | wall s | MB/s on the wire | CPU s, all processes | of a raw stream's rate |\n\
         |---|---|---|---|---|\n",
    );
    out += &row(format!("raw libp2p stream (TCP, Noise, Yamux), {mib} MiB"), raw, 1);
    out += &row(format!("place {mib} MiB with three providers (3 copies, receipts, head)"), place, 3);
    out += &row(format!("fetch {mib} MiB on an empty machine"), fetch, 1);
    out += &format!("| untar, up to Placed | {:.2} | | {:.2} | |\n", untar.wall, untar.cpu());
    out += &format!("| restore from 24 words until mounted | {:.2} | | | |\n", mounted.as_secs_f64());
    out
}

fn raw_ratio(rate: f64, raw: &Cost, sizes: &Sizes) -> f64 {
    rate / (sizes.stream_bytes as f64 / 1e6 / raw.wall)
}
