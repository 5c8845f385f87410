//! How a drive and its providers stand: `holdfast status` tells one from the other, and the metrics say the same.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::harness::{
    Context, Drive, Finished, InitOptions, Network, Process, run, run_ok, wait_until,
};
use serde_json::{Value, json};

const SHORT: Duration = Duration::from_secs(30);
const PLACED: Duration = Duration::from_secs(60);

/// The metrics that a URL of ours offers.
pub fn metrics(url: &str) -> Result<String> {
    let address = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/metrics"));
    let address = address.with_context(|| format!("{url} is no URL of metrics"))?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SHORT))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
    ensure!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    Ok(body.to_owned())
}

/// The value of one metric, with its labels as they are written.
pub fn value(page: &str, name: &str) -> Result<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("no {name} in\n{page}"))?.parse()?)
}

fn status(ctx: &Context, dir: &Path) -> Result<Finished> {
    run(Command::new(ctx.bin("holdfast")?).args(["status", "--json"]).arg(dir), SHORT)
}

/// How a running provider stands.
pub fn of_provider(ctx: &Context, dir: &Path) -> Result<Value> {
    let done = status(ctx, dir)?;
    ensure!(done.status.success(), "{}{}", done.stdout, done.stderr);
    Ok(serde_json::from_str(&done.stdout)?)
}

pub fn told(ctx: &Context) -> Result<()> {
    refused(ctx)?;
    let network = Network::start(ctx, 1)?;
    let dir = ctx.dir.join("measured");
    let mut measured = start_measured(ctx, &dir)?;
    let address = of_provider(ctx, &dir)?;
    let peer = address["provider"].as_str().context("no peer")?;
    let addr = address["addrs"][0].as_str().context("no address")?;
    let mut options = InitOptions { survive: 1, ..InitOptions::default() };
    options.providers = [network.addresses.clone(), vec![format!("{addr}/p2p/{peer}")]].concat();
    options.config = json!({"policy": {"stripe_data_max": 0}});
    let mut drive = Drive::init(ctx, "told", &options)?;
    let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    drive.mount_words = vec!["--metrics".to_owned(), free.port().to_string()];
    drive.mount()?;
    std::fs::write(drive.mountpoint.join("a"), vec![7; 3 << 20])?;
    drive.sync_wait(PLACED)?;

    // A home and a folder are told apart by what is in them.
    let of_drive: Value = serde_json::from_str(&status(ctx, &drive.home)?.stdout)?;
    ensure!(of_drive["drive"].is_string() && of_drive["provider"].is_null(), "{of_drive:#}");
    let report = of_provider(ctx, &dir)?;
    ensure!(report["drive"].is_null() && report["state"] == "providing", "{report:#}");
    ensure!(report["health"]["level"] == "well" && report["sealing"].is_null(), "{report:#}");
    ensure!(report["kept"]["deals_stored"].as_u64() >= Some(1), "{report:#}");
    ensure!(report["served"]["proofs_made"].as_u64() >= Some(1), "{report:#}");
    let mut by_home = Command::new(ctx.bin("holdfast")?);
    let text = run_ok(by_home.arg("--home").arg(&dir).arg("status"), SHORT)?.stdout;
    ensure!(text.starts_with("All is well") && text.contains("proofs      "), "{text}");

    let page = metrics(report["metrics"].as_str().context("no URL")?)?;
    let kept = report["kept"]["stored_bytes"].as_f64().context("no bytes")?;
    ensure!(value(&page, "holdfast_provider_stored_bytes")? >= kept, "{page}");
    ensure!(value(&page, "holdfast_provider_possession_proofs_total{result=\"made\"}")? >= 1.0, "{page}");
    let page = metrics(&format!("http://{free}/metrics"))?;
    let placed = value(&page, "holdfast_drive_bytes{rung=\"placed\"}")?
        + value(&page, "holdfast_drive_bytes{rung=\"proven\"}")?;
    // Seven repeated compresses well: what counts is that it is there.
    ensure!(placed > 0.0, "{page}");
    ensure!(value(&page, "holdfast_drive_safety{level=\"safe\"}")? == 1.0, "{page}");
    ensure!(!page.contains("12D3Koo") && !page.contains(drive.home.to_str().unwrap_or("?")), "{page}");

    drive.unmount()?;
    ensure!(metrics(&format!("http://{free}/metrics")).is_err(), "the metrics outlive the mount");
    measured.kill();
    let stopped = status(ctx, &dir)?;
    ensure!(stopped.status.code() == Some(4), "{}: {}{}", stopped.status, stopped.stdout, stopped.stderr);
    let report: Value = serde_json::from_str(&stopped.stdout)?;
    ensure!(report["state"] == "stopped" && report["provider"] == peer, "{report:#}");
    // The dead socket is no obstacle, and what was given is remembered.
    start_again(ctx, &dir)
}

fn provide(ctx: &Context, dir: &Path, words: &[&str]) -> Result<Command> {
    let mut command = Command::new(ctx.bin("holdfast")?);
    command.args(["provide", "--json"]).arg(dir).args(words);
    Ok(command)
}

fn started(ctx: &Context, dir: &Path, mut command: Command, log: &str) -> Result<Process> {
    let mut process = Process::start(&mut command, &ctx.dir.join(log), &ctx.registry)?;
    wait_until("the provider's status", SHORT, || {
        ensure!(process.running(), "it ended: {}", process.output());
        Ok(status(ctx, dir)?.status.success())
    })?;
    Ok(process)
}

fn start_measured(ctx: &Context, dir: &Path) -> Result<Process> {
    let words = ["--listen", "/ip4/127.0.0.1/tcp/0", "--metrics", "0", "--tree-cache", "5"];
    started(ctx, dir, provide(ctx, dir, &words)?, "measured.log")
}

fn start_again(ctx: &Context, dir: &Path) -> Result<()> {
    let mut again = started(ctx, dir, provide(ctx, dir, &[])?, "again.log")?;
    let report = of_provider(ctx, dir)?;
    ensure!(report["kept"]["deals_stored"].as_u64() >= Some(1), "{report:#}");
    metrics(report["metrics"].as_str().context("the metrics were forgotten")?)?;
    again.kill();
    Ok(())
}

/// Each refusal by its own code, before anything is served; and none of them outlives its command.
fn refused(ctx: &Context) -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let taken = taken.local_addr()?.port().to_string();
    let dir = ctx.dir.join("refused");
    for (words, code, word) in [
        (["--metrics", "nonsense"], 2, "is not an address"),
        (["--metrics", "localhost:9464"], 2, "is not an address"),
        (["--metrics", taken.as_str()], 8, "metrics cannot be offered"),
        (["--metrics", "192.0.2.1:9464"], 9, "metrics cannot be offered"),
        (["--tree-cache", "0"], 2, "0 is not in 1..=100"),
        (["--tree-cache", "lots"], 2, "invalid"),
    ] {
        let done = run(&mut provide(ctx, &dir, &words)?, SHORT)?;
        let all = format!("{}{}", done.stdout, done.stderr);
        ensure!(done.status.code() == Some(code) && all.contains(word), "{words:?}: {} {all}", done.status);
    }
    let nothing = status(ctx, &ctx.folder("nothing")?)?;
    ensure!(nothing.status.code() == Some(5), "{}", nothing.stdout);
    ensure!(nothing.stdout.contains("no provider's folder either"), "{}", nothing.stdout);
    let mut plain =
        started(ctx, &dir, provide(ctx, &dir, &["--listen", "/ip4/127.0.0.1/tcp/0"])?, "plain.log")?;
    ensure!(of_provider(ctx, &dir)?["metrics"].is_null(), "a refused address was remembered");
    plain.kill();
    Ok(())
}
