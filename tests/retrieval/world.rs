//! Providers on machines of their own, and one drive.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::harness::{Context, Drive, Host, InitOptions, Internet, ProviderHandle};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use serde_json::{Value, json};

pub const LONG: Duration = Duration::from_secs(1800);

/// Providers, each on a machine.
pub struct World {
    pub internet: Internet,
    pub hosts: Vec<Host>,
    pub providers: Vec<ProviderHandle>,
}

impl World {
    pub fn new(ctx: &Context, providers: usize) -> Result<World> {
        let mut world = World { internet: Internet::new(ctx)?, hosts: Vec::new(), providers: Vec::new() };
        for n in 0..providers {
            let host = world.internet.public()?;
            host.knows_the_far()?;
            let dir = ctx.folder(&format!("provider-{n}"))?;
            let mut command = host.command(&ctx.bin("holdfast")?);
            command.arg("provide").arg(&dir).args(["--capacity", "40G", "--nat", "off"]);
            command.arg("--listen").arg(format!("/ip4/{}/tcp/4001", host.ip));
            let log = ctx.dir.join(format!("provider-{n}.out"));
            world.providers.push(ProviderHandle::start(ctx, &mut command, &log)?);
            world.hosts.push(host);
        }
        Ok(world)
    }

    /// A mounted drive with the first so many providers.
    pub fn drive(&self, ctx: &Context, name: &str, providers: usize, survive: u8) -> Result<Drive> {
        let config = json!({"limits": {"seal_after_idle_seconds": 1, "stripe_after_seconds": 86400}});
        self.drive_with(ctx, name, providers, survive, config)
    }

    /// The same, with other settings.
    pub fn drive_with(
        &self,
        ctx: &Context,
        name: &str,
        providers: usize,
        survive: u8,
        config: Value,
    ) -> Result<Drive> {
        let addresses = self.providers.iter().take(providers).map(|provider| provider.address.clone());
        let options = InitOptions { survive, providers: addresses.collect(), config };
        let drive = Drive::init(ctx, name, &options)?;
        drive.mount()?;
        Ok(drive)
    }
}

/// A file that no compression makes smaller, and no block of it like another.
pub fn write_file(path: &Path, bytes: u64, seed: u64) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    let (mut rng, mut buffer) = (ChaCha8Rng::seed_from_u64(seed), vec![0; 1 << 20]);
    for _ in 0..bytes >> 20 {
        rng.fill_bytes(&mut buffer);
        file.write_all(&buffer)?;
    }
    file.sync_all()?;
    Ok(())
}

/// Nothing of the drive is here any more.
pub fn make_cold(drive: &Drive) -> Result<()> {
    drive.sync_wait(LONG)?;
    let told = drive.command_with(&["evict"])?;
    ensure!(told.status.success(), "evict: {}{}", told.stdout, told.stderr);
    drive.unmount()?;
    drive.mount().map(drop)
}

/// Seconds in which a file is read from end to end.
pub fn read_through(path: &Path) -> Result<f64> {
    let (start, mut buffer) = (Instant::now(), vec![0; 1 << 20]);
    let mut file = std::fs::File::open(path)?;
    while file.read(&mut buffer)? > 0 {}
    Ok(start.elapsed().as_secs_f64())
}

pub fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints a row.
pub fn row(what: &str, ours: &str, beside: &str, ratio: &str) {
    println!("| {what} | {ours} | {beside} | {ratio} |");
}

fn own_program() -> Result<PathBuf> {
    Ok(std::env::current_exe()?)
}

/// Serves a bare libp2p stream on this machine.
pub fn raw_server(host: &Host) -> Result<Command> {
    let mut command = host.command(&own_program()?);
    command.args(["--serve-raw", &host.ip]);
    Ok(command)
}

/// Sends as many bytes as somebody asks for, by eight of their own.
pub fn serve_tcp(ip: &str) -> Result<()> {
    let listener = TcpListener::bind((ip, 0))?;
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let (mut stream, mut wanted, buffer) = (stream?, [0; 8], vec![7u8; 256 << 10]);
        stream.read_exact(&mut wanted)?;
        let mut left = u64::from_le_bytes(wanted);
        while left > 0 {
            let n = left.min(buffer.len() as u64);
            stream.write_all(&buffer[..n as usize])?;
            left -= n;
        }
    }
    Ok(())
}

/// Seconds in which so many bytes come over a bare TCP connection from that machine, and how long it took to connect.
pub fn tcp_copy(host: &Host, bytes: u64) -> Result<(f64, f64)> {
    let mut command = host.command(&own_program()?);
    let mut server = command.args(["--serve-tcp", &host.ip]).stdout(Stdio::piped()).spawn()?;
    let mut address = String::new();
    BufReader::new(server.stdout.take().context("no output")?).read_line(&mut address)?;
    let start = Instant::now();
    let mut stream = TcpStream::connect(address.trim())?;
    let connected = start.elapsed().as_secs_f64();
    let (start, mut buffer) = (Instant::now(), vec![0; 256 << 10]);
    stream.write_all(&bytes.to_le_bytes())?;
    let mut got = 0;
    while got < bytes {
        let n = stream.read(&mut buffer)?;
        ensure!(n > 0, "the stream ended after {got} bytes");
        got += n as u64;
    }
    let took = start.elapsed().as_secs_f64();
    server.kill()?;
    server.wait()?;
    Ok((took, connected))
}
