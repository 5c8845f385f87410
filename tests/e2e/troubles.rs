//! What happens to networks, with real programs on machines of their own: some cannot be reached, answers get lost, a disk is full, a program is
//! replaced, all are started again at once. Nothing of it is an error to whoever uses the drive.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::compare::Tree;
use holdfast_tests::harness::{
    Context, Drive, Host, InitOptions, Internet, ProviderHandle, end_process, run_ok, wait_until,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{ensure_same, inputs};

const PROVIDERS: usize = 10;
const SYNC: Duration = Duration::from_secs(240);
/// Within a minute of idleness data is safe, while enough providers answer.
const PROMISED: Duration = Duration::from_secs(60);
/// Silence is noticed after 10 s here, and whoever is back greeted within 30.
const BACK: Duration = Duration::from_secs(120);
/// Room of the provider whose disk gets full: less than the files of one part.
const SMALL_DISK: &str = "24m";
const FILES: usize = 6;
const FILE_BYTES: usize = 2 << 20;

struct Machine {
    host: Host,
    dir: PathBuf,
    program: PathBuf,
    provider: ProviderHandle,
}

fn start(
    ctx: &Context,
    host: &Host,
    dir: &std::path::Path,
    program: &std::path::Path,
) -> Result<ProviderHandle> {
    let mut command: Command = host.command(program);
    command.arg("provide").arg(dir).args(["--capacity", "4G", "--nat", "off", "--mdns", "off"]);
    command.arg("--listen").arg(format!("/ip4/{}/tcp/4001", host.ip));
    ProviderHandle::start(ctx, &mut command, &dir.with_extension("out"))
}

impl Machine {
    fn new(ctx: &Context, internet: &mut Internet, n: usize) -> Result<Machine> {
        let (host, dir) = (internet.public()?, ctx.folder(&format!("provider-{n}"))?);
        if n == 0 {
            ctx.registry.mount(&dir)?;
            let size = format!("size={SMALL_DISK}");
            run_ok(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(&dir), SYNC)?;
        }
        let program = ctx.bin("holdfast")?;
        let provider = start(ctx, &host, &dir, &program)?;
        Ok(Machine { host, dir, program, provider })
    }

    fn again(&mut self, ctx: &Context) -> Result<()> {
        self.provider = start(ctx, &self.host, &self.dir, &self.program)?;
        Ok(())
    }

    fn peer(&self) -> Result<&str> {
        Ok(self.provider.address.rsplit_once("/p2p/").context("no identity")?.1)
    }
}

/// Files are written; what then goes wrong is over when they are safe, or stays.
fn part(
    ctx: &Context,
    drive: &Drive,
    name: &str,
    seed: u64,
    trouble: impl FnOnce() -> Result<()>,
) -> Result<()> {
    inputs::random_files(&drive.mountpoint.join(name), FILES, FILE_BYTES, seed)?;
    trouble()?;
    let took = drive.sync_wait(SYNC).with_context(|| name.to_owned())?;
    ctx.note(format!("{name}: safe after {:.1} s", took.as_secs_f64()));
    ensure!(took < PROMISED, "{name}: safe after {took:?} only\n{}", drive.daemon_log_text());
    Ok(())
}

fn states(drive: &Drive) -> Result<Vec<(String, String)>> {
    let status = drive.status()?;
    let all = status["providers"].as_array().context("no providers")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(all.iter().map(|p| (text(&p["peer_id"]), text(&p["state"]))).collect())
}

fn wait_ok(ctx: &Context, drive: &Drive, machines: &[Machine]) -> Result<()> {
    let took = wait_until("all providers answering again", BACK, || {
        let states = states(drive)?;
        machines.iter().map(Machine::peer).try_fold(true, |all, peer| {
            let peer = peer?;
            Ok(all && states.iter().any(|(p, state)| p == peer && state == "ok"))
        })
    })
    .with_context(|| drive.status_text())?;
    ctx.note(format!("all answer after {:.1} s", took.as_secs_f64()));
    Ok(())
}

pub fn are_lived_through(ctx: &Context) -> Result<()> {
    let mut internet = Internet::new(ctx)?;
    let mut machines =
        (0..PROVIDERS).map(|n| Machine::new(ctx, &mut internet, n)).collect::<Result<Vec<Machine>>>()?;
    let here = internet.public()?;
    here.enter()?;
    let config = json!({"limits": {
        "seal_after_idle_seconds": 1, "audit_interval_seconds": 4, "provider_silent_seconds_max": 10
    }});
    let providers = machines.iter().map(|machine| machine.provider.address.clone()).collect();
    let drive = Drive::init(ctx, "drive", &InitOptions { providers, config, ..InitOptions::default() })?;
    drive.mount()?;
    part(ctx, &drive, "before", 1, || Ok(()))?;

    here.sh(
        "nft add table ip trouble; nft 'add chain ip trouble in { type filter hook input priority 0; }'",
    )?;
    let cut: Vec<String> = machines[1..3].iter().map(|machine| machine.host.ip.clone()).collect();
    part(ctx, &drive, "two cut off", 2, || {
        here.sh(&format!("nft add rule ip trouble in ip saddr {{ {} }} drop", cut.join(", "))).map(drop)
    })?;
    here.sh("nft flush chain ip trouble in")?;
    wait_ok(ctx, &drive, &machines)?;

    let lossy: Vec<String> = machines[4..7].iter().map(|machine| machine.host.ip.clone()).collect();
    part(ctx, &drive, "every eighth answer lost", 3, || {
        let rule = format!("ip saddr {{ {} }} numgen random mod 8 0 drop", lossy.join(", "));
        here.sh(&format!("nft add rule ip trouble in {rule}")).map(drop)
    })?;
    here.sh("nft flush chain ip trouble in")?;

    let ballast = machines[0].dir.join("somebody-elses");
    let filled = Command::new("sh").args(["-c", "head -c 1G /dev/zero > \"$0\""]).arg(&ballast).output()?;
    ensure!(!filled.status.success(), "the small disk took a gigabyte");
    part(ctx, &drive, "a disk is full", 4, || Ok(()))?;
    ensure!(machines[0].provider.process.running(), "the provider with the full disk ended");
    std::fs::remove_file(&ballast)?;

    let newer = ctx.dir.join("holdfast-newer");
    std::fs::copy(&machines[5].program, &newer)?;
    machines[5].program = newer;
    let pid = machines[5].provider.process.pid();
    let upgraded = &mut machines[5];
    part(ctx, &drive, "a program is replaced", 5, || {
        end_process(pid, Signal::SIGTERM, Duration::from_secs(30))?;
        upgraded.again(ctx)
    })?;

    let all = &mut machines;
    part(ctx, &drive, "all start again at once", 6, || {
        for machine in all.iter_mut() {
            machine.provider.process.kill();
        }
        all.iter_mut().try_for_each(|machine| machine.again(ctx))
    })?;
    wait_ok(ctx, &drive, &machines)?;
    drive.wait_full(SYNC)?;

    let tree = Tree::read(&drive.mountpoint)?;
    // Who was started again has to be challenged first.
    wait_until("everything evicted", BACK, || Ok(drive.command_with(&["evict"])?.status.success()))?;
    drive.unmount()?;
    drive.mount()?;
    ensure_same("from the providers, after all that", &tree.differences(&Tree::read(&drive.mountpoint)?))?;
    let lost = drive.status()?["pieces"]["lost"].clone();
    ensure!(lost == 0, "lost pieces: {lost}");
    drive.unmount()?;
    Ok(())
}
