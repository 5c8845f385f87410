//! Beside Tahoe-LAFS, 3 of 5, every node a process of this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use holdfast_tests::harness::{Context, Process, run_ok, wait_until};

use crate::world::{LONG, World, make_cold, read_through, row, write_file};

/// Seven programs in Python, on a machine that may have other work.
const STARTED: Duration = Duration::from_secs(300);
const NODES: usize = 5;

struct Grid {
    program: PathBuf,
    client: PathBuf,
    nodes: Vec<Process>,
    _others: Vec<Process>,
}

impl Grid {
    fn start(ctx: &Context, program: &Path) -> Result<Grid> {
        let make = |words: &[&str], dir: &Path| {
            run_ok(Command::new(program).args(words).arg(dir), STARTED).map(drop)
        };
        let listen =
            |port: usize| [format!("tcp:port={port}:interface=127.0.0.1"), format!("tcp:127.0.0.1:{port}")];
        let introducer = ctx.dir.join("introducer");
        let at = listen(4100);
        make(&["create-introducer", "--port", &at[0], "--location", &at[1]], &introducer)?;
        let mut others = vec![run_node(ctx, program, &introducer)?];
        let furl = introducer.join("private/introducer.furl");
        wait_until("the introducer", STARTED, || Ok(furl.exists()))?;
        let furl = std::fs::read_to_string(furl)?.trim().to_owned();
        let shares =
            ["--introducer", &furl, "--shares-needed", "3", "--shares-happy", "5", "--shares-total", "5"];
        let mut nodes = Vec::new();
        for n in 0..NODES {
            let (dir, at) = (ctx.dir.join(format!("node-{n}")), listen(4110 + n));
            let words = ["create-node", "--port", &at[0], "--location", &at[1], "--webport", "none"];
            make(&[&words[..], &shares[..]].concat(), &dir)?;
            nodes.push(run_node(ctx, program, &dir)?);
        }
        let client = ctx.dir.join("client");
        make(
            &[&["create-client", "--webport", "tcp:4199:interface=127.0.0.1"][..], &shares[..]].concat(),
            &client,
        )?;
        others.push(run_node(ctx, program, &client)?);
        let grid = Grid { program: program.to_owned(), client, nodes, _others: others };
        let probe = ctx.dir.join("probe");
        std::fs::write(&probe, vec![1; 4096])?;
        wait_until("five connected nodes", STARTED, || {
            Ok(grid.tahoe(&["put", &probe.to_string_lossy()]).is_ok())
        })?;
        Ok(grid)
    }

    fn tahoe(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(["-d".as_ref(), self.client.as_os_str()]).args(words);
        Ok(run_ok(&mut command, LONG)?.stdout.trim().to_owned())
    }
}

fn run_node(ctx: &Context, program: &Path, dir: &Path) -> Result<Process> {
    let log = dir.with_extension("log");
    Process::start(Command::new(program).args(["run", "--allow-stdin-close"]).arg(dir), &log, &ctx.registry)
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let start = Instant::now();
    let out = work()?;
    Ok((start.elapsed().as_secs_f64(), out))
}

pub fn beside(ctx: &Context, program: &Path) -> Result<()> {
    if Command::new(program).arg("--version").output().is_err() {
        row("Tahoe-LAFS is not here", "", "", "");
        return Ok(());
    }
    let mib: u64 = if ctx.full { 100 } else { 25 };
    let source = ctx.dir.join("source");
    write_file(&source, mib << 20, 9)?;
    let ours = holdfast(ctx, &source, mib)?;
    let theirs = tahoe(ctx, program, &source)?;
    for (n, what) in ["put (until it survives the loss of two)", "get, cold", "repair of one lost provider"]
        .iter()
        .enumerate()
    {
        let (us, them) = (ours[n], theirs[n]);
        let what = format!("{mib} MiB: {what}; Tahoe-LAFS, 3 of 5");
        row(&what, &format!("{us:.2} s"), &format!("{them:.2} s"), &format!("{:.1}", them / us));
    }
    Ok(())
}

fn tahoe(ctx: &Context, program: &Path, source: &Path) -> Result<[f64; 3]> {
    run_ok(Command::new("ip").args(["link", "set", "lo", "up"]), STARTED)?;
    let mut grid = Grid::start(ctx, program)?;
    let (put, cap) = timed(|| grid.tahoe(&["put", &source.to_string_lossy()]))?;
    let copy = ctx.dir.join("copy");
    let (get, _) = timed(|| grid.tahoe(&["get", &cap, &copy.to_string_lossy()]))?;
    if std::fs::read(&copy)? != std::fs::read(source)? {
        bail!("Tahoe gave other bytes");
    }
    // One node forgets its shares; repair puts them back.
    let node = grid.nodes.first_mut().context("no node")?;
    node.kill();
    std::fs::remove_dir_all(ctx.dir.join("node-0/storage/shares"))?;
    let again = run_node(ctx, program, &ctx.dir.join("node-0"))?;
    std::thread::sleep(Duration::from_secs(5));
    let (repair, said) = timed(|| grid.tahoe(&["check", "--repair", &cap]))?;
    ctx.note(said.replace('\n', "; "));
    grid.nodes.push(again);
    Ok([put, get, repair])
}

/// The same with a drive; a provider that is to be used no longer is a loss that is known at once.
fn holdfast(ctx: &Context, source: &Path, mib: u64) -> Result<[f64; 3]> {
    let mut world = World::new(ctx, NODES + 1)?;
    let here = world.internet.public()?;
    here.enter()?;
    let drive = world.drive(ctx, "drive", NODES, 2)?;
    let file = drive.mountpoint.join("source");
    let (put, _) = timed(|| {
        std::fs::copy(source, &file)?;
        drive.sync_wait(LONG)
    })?;
    make_cold(&drive)?;
    let get = read_through(&file)?;
    let counted = drive.status()?["providers"].as_array().cloned().unwrap_or_default();
    let holder =
        counted.iter().filter(|p| p["copies"].as_u64() > Some(0)).max_by_key(|p| p["bytes"].as_u64());
    let peer = holder.and_then(|p| p["peer_id"].as_str()).context("nobody holds anything")?.to_owned();
    let n = world.providers.iter().position(|p| p.address.ends_with(&peer)).context("who?")?;
    world.providers[n].process.kill();
    let spare = world.providers[NODES].address.clone();
    let told = drive.command_with(&["provider", "add", &spare])?;
    anyhow::ensure!(told.status.success(), "{}{}", told.stdout, told.stderr);
    let (repair, _) = timed(|| {
        let told = drive.command_with(&["provider", "remove", &peer])?;
        anyhow::ensure!(told.status.success(), "{}{}", told.stdout, told.stderr);
        drive.sync_wait(LONG)?;
        drive.wait_full(LONG)
    })?;
    ctx.note(format!("{mib} MiB: the provider with most of it was taken out"));
    drive.unmount()?;
    Ok([put, get, repair])
}
