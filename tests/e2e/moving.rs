//! Providers that are not where they were, and a drive that is found by somebody who keeps nothing of it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::compare::Tree;
use holdfast_tests::harness::{
    Context, Drive, Host, InitOptions, Internet, Network, ProviderHandle, RestoreFrom, run_ok, wait_until,
};
use serde_json::{Value, json};

use crate::{ensure_same, inputs, remove_tree};

const SYNC: Duration = Duration::from_secs(180);
/// A provider that moved is found within this time: it is greeted again after 30 s at most.
const FOUND: Duration = Duration::from_secs(90);

/// From the next start on it listens at ports that the system draws anew.
fn forget_ports(folder: &Path) -> Result<()> {
    let path = folder.join("config");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["listen"] = json!(["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"]);
    std::fs::write(&path, serde_json::to_vec(&config)?)?;
    Ok(())
}

fn move_provider(network: &Network, number: usize) -> Result<()> {
    network.stop(number)?;
    forget_ports(&network.folder(number))?;
    network.start_one(number)
}

/// Where the provider's folder says that it listens.
fn addrs_of(network: &Network, number: usize) -> Result<Vec<String>> {
    let path = network.folder(number).join("address");
    let address: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let addrs = address["addrs"].as_array().context("no addresses")?;
    Ok(addrs.iter().filter_map(|addr| addr.as_str().map(str::to_owned)).collect())
}

/// Where the drive says that the provider is.
fn known_first(drive: &Drive, peer: &str) -> Result<(String, bool)> {
    let status = drive.status()?;
    let providers = status["providers"].as_array().context("no providers")?;
    let provider = providers.iter().find(|p| p["peer_id"] == peer).context("the provider is not listed")?;
    let addr = provider["addrs"][0].as_str().unwrap_or_default().to_owned();
    Ok((addr, provider["state"] == "ok" && provider["connected"] == true))
}

pub fn found_again(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 5)?;
    for number in 1..=5 {
        let addrs = addrs_of(&network, number)?;
        ensure!(addrs.len() == 2 && addrs[1].ends_with("/quic-v1"), "provider {number} is at {addrs:?}");
    }
    // The fifth provider is none of the drive's.
    let quick = json!({"limits": {"seal_after_idle_seconds": 2, "audit_interval_seconds": 5}});
    let options = InitOptions {
        providers: network.addresses[..4].to_vec(),
        config: quick.clone(),
        ..Default::default()
    };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    inputs::random_files(&drive.mountpoint.join("before"), 8, 64 << 10, 1)?;
    drive.sync_wait(SYNC)?;

    for number in [2, 3] {
        let before = addrs_of(&network, number)?;
        move_provider(&network, number)?;
        let after = addrs_of(&network, number)?;
        ensure!(after[0] != before[0], "provider {number} came back at its old port");
        let peer = network.peer(number)?;
        let took = wait_until("the provider that moved", FOUND, || {
            Ok(known_first(&drive, &peer)? == (after[0].clone(), true))
        })
        .with_context(|| format!("{}\n{}", drive.status_text(), drive.daemon_log()))?;
        ctx.note(format!("provider {number} is found at its new port after {:.1} s", took.as_secs_f64()));
    }
    inputs::random_files(&drive.mountpoint.join("after"), 8, 64 << 10, 2)?;
    drive.sync_wait(SYNC)?;
    // The next mount knows it without looking.
    drive.unmount()?;
    drive.mount()?;
    let (addr, _) = known_first(&drive, &network.peer(2)?)?;
    ensure!(addr == addrs_of(&network, 2)?[0], "the next mount begins at {addr}");
    let tree = Tree::read(&drive.mountpoint)?;
    drive.unmount()?;
    remove_tree(&drive.home)?;

    // The published head names ports where nobody is any more, and who is asked keeps nothing of the drive.
    for number in 1..=4 {
        move_provider(&network, number)?;
    }
    let door = [network.addresses[4].clone()];
    let restored = std::cell::RefCell::new(None);
    let took = wait_until("the drive being found by a stranger's address", FOUND, || {
        let from = RestoreFrom { secrets: &drive.secrets, peers: &door, config: quick.clone() };
        // The providers have just started; the first try may come before they have told where they are.
        match Drive::restore(ctx, "restored", &from) {
            Ok((found, _)) => {
                restored.replace(Some(found));
                Ok(true)
            }
            Err(error) => {
                ctx.note(format!("not yet: {error:#}").lines().next().unwrap_or_default());
                Ok(false)
            }
        }
    })?;
    let restored = restored.into_inner().context("not restored")?;
    ctx.note(format!("restored by a provider that keeps nothing of it, after {:.1} s", took.as_secs_f64()));
    ensure_same("the restored drive", &tree.differences(&Tree::read(&restored.mountpoint)?))?;
    std::fs::write(restored.mountpoint.join("and it is writable"), "yes")?;
    restored.sync_wait(SYNC)?;
    restored.unmount()?;
    Ok(())
}

/// The words alone, on a network where the drive's providers are: no address is named at all.
pub fn found_nearby(ctx: &Context) -> Result<()> {
    let mut lan = Internet::new(ctx)?;
    let hosts: Vec<Host> = (0..3).map(|_| lan.public()).collect::<Result<_>>()?;
    let here = lan.public()?;
    let mut addresses = Vec::new();
    let mut running = Vec::new();
    for (n, host) in hosts.iter().enumerate() {
        let mut command = host.command(&ctx.bin("holdfast")?);
        command.arg("provide").arg(ctx.folder(&format!("near-{n}"))?).args(["--mdns", "on", "--nat", "off"]);
        let provider = ProviderHandle::start(ctx, &mut command, &ctx.dir.join(format!("near-{n}.out")))?;
        addresses.push(provider.address.clone());
        running.push(provider);
    }
    here.enter()?;
    let drive = Drive::init(ctx, "drive", &InitOptions { providers: addresses, ..Default::default() })?;
    drive.mount()?;
    inputs::random_files(&drive.mountpoint.join("files"), 4, 64 << 10, 1)?;
    drive.sync_wait(SYNC)?;
    drive.unmount()?;

    let restore = |home: &Path, mdns: &str| {
        let mut command = Command::new(ctx.bin("holdfast")?);
        command.arg("--home").arg(home).args(["restore", "--no-mount", "--mdns", mdns]);
        command.arg("--words-file").arg(&drive.secrets).arg("--passphrase-file").arg(&drive.secrets);
        run_ok(&mut command, FOUND)
    };
    ensure!(restore(&ctx.dir.join("off.home"), "off").is_err(), "a drive was found without asking anybody");
    let home = ctx.dir.join("nearby.home");
    let found = restore(&home, "on")?;
    ctx.note(format!("found on the local network after {:.1} s", found.took.as_secs_f64()));
    let config: Value = serde_json::from_slice(&std::fs::read(home.join("config"))?)?;
    let providers = config["providers"].as_array().context("no providers")?;
    ensure!(providers.len() == 3, "the home names {} providers", providers.len());
    Ok(())
}
