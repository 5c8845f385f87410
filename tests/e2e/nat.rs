//! A drive and a provider, each behind a NAT with real rules: relays, holes, a relay that dies, an address that changes.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::compare::Tree;
use holdfast_tests::harness::{
    Context, Drive, Host, InitOptions, Internet, ProviderHandle, kill_pid, wait_until,
};
use serde_json::json;

use crate::{ensure_same, inputs};

const SYNC: Duration = Duration::from_secs(240);
/// Peers are asked to dial back a few seconds after the start.
const KNOWN: Duration = Duration::from_secs(120);
/// A broken way is noticed by pings that stay away, and looked for again.
const FOUND: Duration = Duration::from_secs(180);
/// Three attempts, each within the ten seconds of a connection.
const PUNCHED: Duration = Duration::from_secs(40);
const LISTEN: [&str; 2] = ["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"];

struct Station {
    name: String,
    provider: ProviderHandle,
}

impl Station {
    fn start(ctx: &Context, host: &Host, name: &str, bootstrap: &[&Station]) -> Result<Station> {
        let dir = ctx.folder(name)?;
        let mut command: Command = host.command(&ctx.bin("holdfast")?);
        command.arg("provide").arg(&dir).args(["--capacity", "4G", "--mdns", "off"]);
        for addr in LISTEN {
            command.args(["--listen", addr]);
        }
        for other in bootstrap {
            command.arg("--bootstrap").arg(&other.provider.address);
        }
        let provider = ProviderHandle::start(ctx, &mut command, &ctx.dir.join(format!("{name}.out")))?;
        Ok(Station { name: name.to_owned(), provider })
    }

    fn log(&self, ctx: &Context) -> String {
        std::fs::read_to_string(ctx.dir.join(&self.name).join("provider.log")).unwrap_or_default()
    }

    fn wait_log(&self, ctx: &Context, words: &str, times: usize) -> Result<()> {
        let took = wait_until(words, KNOWN, || Ok(self.log(ctx).matches(words).count() >= times))
            .with_context(|| self.log(ctx))?;
        ctx.note(format!("{}: `{words}` after {:.1} s", self.name, took.as_secs_f64()));
        Ok(())
    }

    fn peer(&self) -> Result<&str> {
        Ok(self.provider.address.rsplit_once("/p2p/").context("no identity")?.1)
    }
}

/// What was written is with everybody, the provider behind the NAT included.
fn write_and_place(ctx: &Context, drive: &Drive, name: &str, seed: u64) -> Result<()> {
    inputs::random_files(&drive.mountpoint.join(name), 4, 512 << 10, seed)?;
    let took = drive.sync_wait(SYNC)?;
    ctx.note(format!("{name}: placed with all three after {:.1} s", took.as_secs_f64()));
    Ok(())
}

pub fn through_two_nats(ctx: &Context) -> Result<()> {
    let mut internet = Internet::new(ctx)?;
    let publics: Vec<Host> = (0..4).map(|_| internet.public()).collect::<Result<_>>()?;
    let mut home = internet.behind_nat()?;
    let away = internet.behind_nat()?;

    let mut stations: Vec<Station> = Vec::new();
    for (n, host) in publics.iter().enumerate() {
        let known: Vec<&Station> = stations.iter().collect();
        let station = Station::start(ctx, host, &format!("public-{n}"), &known)?;
        stations.push(station);
    }
    for station in &stations {
        station.wait_log(ctx, "status=Public", 1)?;
    }
    let known: Vec<&Station> = stations.iter().collect();
    let hidden = Station::start(ctx, &home.host, "hidden", &known)?;
    hidden.wait_log(ctx, "status=Private", 1)?;
    hidden.wait_log(ctx, "a relay listens for this node", 2)?;

    away.host.enter()?;
    let far = home.host.ip.clone();
    ensure!(hidden.provider.address.contains(&far), "{} is not at {far}", hidden.provider.address);
    // Two relays listen for it. The one that will die keeps none of the drive's data, so that all three providers stay.
    let log = hidden.log(ctx);
    let relays = |s: &&Station| {
        s.peer().is_ok_and(|peer| log.contains(&format!("relay listens for this node relay={peer}")))
    };
    let (used, others): (Vec<&Station>, Vec<&Station>) = stations.iter().partition(relays);
    ensure!(used.len() == 2, "{} relays are used", used.len());
    let dies = used[1];
    let keepers = [used[0], others[0], &hidden];
    let providers = keepers.map(|station| station.provider.address.clone()).to_vec();
    let quick = json!({"limits": {
        "seal_after_idle_seconds": 1, "audit_interval_seconds": 5, "provider_silent_seconds_max": 600
    }});
    let drive = Drive::init(ctx, "drive", &InitOptions { providers, config: quick, ..Default::default() })?;
    drive.mount()?;
    write_and_place(ctx, &drive, "first", 1)?;
    let direct = || drive.daemon_log_text().matches("a direct way was found").count();
    // A direct way is a gain and no condition: README's limits say so.
    let punched = wait_until("a hole through both NATs", PUNCHED, || Ok(direct() > 0)).is_ok();
    ctx.note(if punched { "a hole was punched" } else { "no hole was punched: data goes through a relay" });
    write_and_place(ctx, &drive, "second", 2)?;

    // The relay dies; the drive begins anew, so that it needs one.
    kill_pid(dies.provider.process.pid())?;
    ctx.note(format!("{} is gone", dies.name));
    drive.unmount()?;
    drive.mount()?;
    write_and_place(ctx, &drive, "with one relay less", 3)?;
    hidden.wait_log(ctx, "a relay listens for this node", 3)?;

    home.change_address("45.0.2.77")?;
    ctx.note("the hidden provider's line has another address");
    let peer = hidden.peer()?.to_owned();
    // What is placed now is placed there: the status alone may still tell of before.
    write_and_place(ctx, &drive, "at the new address", 4)?;
    let back = wait_until("the provider at its new address", FOUND, || {
        let status = drive.status()?;
        let all = status["providers"].as_array().context("no providers")?;
        let provider = all.iter().find(|p| p["peer_id"] == peer.as_str()).context("not listed")?;
        Ok(provider["state"] == "ok" && provider["connected"] == true)
    })?;
    ctx.note(format!("its status says so after {:.1} s more", back.as_secs_f64()));
    let tree = Tree::read(&drive.mountpoint)?;
    drive.unmount()?;
    drive.mount()?;
    ensure_same("after all that", &tree.differences(&Tree::read(&drive.mountpoint)?))?;
    drive.unmount()?;
    Ok(())
}
