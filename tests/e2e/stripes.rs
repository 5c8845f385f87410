//! Copies become stripes: cheaper, and as safe; read, repaired and restored without a pause.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::compare::Tree;
use holdfast_tests::harness::{Context, Drive, InitOptions, Network, RestoreFrom, wait_until};
use serde_json::{Value, json};

use crate::{ensure_same, inputs, remove_tree};

/// Commits, and so pieces: two stripes of three.
const PARTS: u64 = 6;
const PART_BYTES: u64 = 32 << 20;
const SYNC: Duration = Duration::from_secs(240);
const STRIPED: Duration = Duration::from_secs(180);
const REPAIR: Duration = Duration::from_secs(180);

fn quickly() -> Value {
    json!({
        "policy": {"stripe_data_max": 3},
        "limits": {
            "audit_interval_seconds": 3,
            "seal_after_idle_seconds": 2,
            "provider_silent_seconds_max": 10,
            "stripe_after_seconds": 5,
            "surplus_grace_seconds": 3
        }
    })
}

/// What all providers keep in slots.
fn stored(network: &Network, providers: &[usize]) -> Result<u64> {
    let mut bytes = 0;
    for number in providers {
        let slots = network.folder(*number).join("slots");
        for entry in std::fs::read_dir(&slots).with_context(|| slots.display().to_string())? {
            // One that is being released may go meanwhile.
            bytes += entry?.metadata().map_or(0, |meta| meta.len());
        }
    }
    Ok(bytes)
}

fn redundancy(drive: &Drive) -> Result<Value> {
    Ok(drive.status()?["redundancy"].clone())
}

fn told(drive: &Drive) -> String {
    format!("{}\n{}", drive.status_text(), drive.daemon_log())
}

/// Reads everything, and says how long the slowest file took.
fn same(ctx: &Context, what: &str, drive: &Drive, tree: &Tree) -> Result<()> {
    let start = Instant::now();
    let found = Tree::read(&drive.mountpoint).with_context(|| drive.daemon_log())?;
    ctx.note(format!("{what}: {} MB read in {:.1} s", found.bytes >> 20, start.elapsed().as_secs_f64()));
    ensure_same(what, &tree.differences(&found))
}

fn restored(ctx: &Context, name: &str, secrets: &Path, peer: &str) -> Result<Drive> {
    let peers = [peer.to_owned()];
    let (drive, took) =
        Drive::restore(ctx, name, &RestoreFrom { secrets, peers: &peers, config: quickly() })?;
    ctx.note(format!("{name} in {:.1} s", took.as_secs_f64()));
    Ok(drive)
}

pub fn become_cheaper(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 7)?;
    let options = InitOptions {
        providers: network.addresses[..5].to_vec(),
        config: quickly(),
        ..InitOptions::default()
    };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    for part in 0..PARTS {
        inputs::random_files(
            &drive.mountpoint.join(format!("data/{part}")),
            16,
            PART_BYTES as usize / 16,
            part,
        )?;
        drive.sync_wait(SYNC)?;
    }
    std::fs::write(drive.mountpoint.join("small"), b"stays a copy")?;
    drive.sync_wait(SYNC)?;
    let tree = Tree::read(&drive.mountpoint)?;
    let data = PARTS * PART_BYTES;
    let first = [1, 2, 3, 4, 5];
    let copies = stored(&network, &first)?;
    let start = Instant::now();
    wait_until("a first stripe being made", STRIPED, || {
        Ok(redundancy(&drive)?["stripes"].as_u64().is_some_and(|stripes| stripes > 0))
    })
    .with_context(|| told(&drive))?;
    drive.kill()?;
    drive.mount()?;
    ctx.note("the daemon was killed while a stripe was being made");
    // Five slots for three pieces, and some small pieces that stay copies.
    let enough = data * 5 / 3 + data / 8;
    wait_until("copies becoming stripes", STRIPED, || {
        let r = redundancy(&drive)?;
        Ok(r["stripes"] == 2 && r["stripes_full"] == 2 && stored(&network, &first)? <= enough)
    })
    .with_context(|| told(&drive))?;
    let stripes = stored(&network, &first)?;
    ctx.note(format!(
        "{} MB of data: {} MB with providers as copies (at the time), {} MB as stripes after {:.1} s; status says {}",
        data >> 20,
        copies >> 20,
        stripes >> 20,
        start.elapsed().as_secs_f64(),
        redundancy(&drive)?
    ));
    ensure!(stripes >= data * 5 / 3, "less is stored than the stripes are");
    drive.sync_wait(SYNC)?;
    let rung = drive.durability(&drive.mountpoint.join("data"))?;
    ensure!(rung.contains("survives=2"), "the data stands on {rung}");
    drive.unmount()?;
    remove_tree(&drive.home)?;

    // From here on nothing is on this machine: every byte comes from slots.
    let drive = restored(ctx, "restored", &drive.secrets, &network.addresses[2])?;
    same(ctx, "restored from stripes", &drive, &tree)?;
    let lost = [1, 4];
    for number in lost {
        network.kill(number)?;
        remove_tree(&network.folder(number))?;
    }
    ctx.note("providers 1 and 4 are killed, their folders deleted");
    drive.unmount()?;
    remove_tree(&drive.home)?;
    let drive = restored(ctx, "decoded", &drive.secrets, &network.addresses[2])?;
    same(ctx, "two of five gone", &drive, &tree)?;
    repaired(ctx, &drive, &network, &lost)?;
    same(ctx, "repaired", &drive, &tree)?;
    drive.unmount()?;
    Ok(())
}

/// With fewer providers than a stripe has slots its pieces become copies again, and survive as much as before.
pub fn become_copies_again(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 5)?;
    let options =
        InitOptions { providers: network.addresses.clone(), config: quickly(), ..InitOptions::default() };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    for part in 0..3 {
        inputs::random_files(&drive.mountpoint.join(format!("data/{part}")), 4, 1 << 20, part)?;
        drive.sync_wait(SYNC)?;
    }
    let tree = Tree::read(&drive.mountpoint)?;
    wait_until("the copies being given up", STRIPED, || {
        let r = redundancy(&drive)?;
        Ok(r["stripes_full"] == 1 && r["striped_bytes"].as_u64().is_some_and(|bytes| bytes >= 12 << 20))
    })
    .with_context(|| told(&drive))?;
    drive.unmount()?;
    remove_tree(&drive.home)?;
    let drive = restored(ctx, "restored", &drive.secrets, &network.addresses[1])?;
    for number in [3, 5] {
        network.kill(number)?;
        remove_tree(&network.folder(number))?;
    }
    let start = Instant::now();
    wait_until("three copies of everything", REPAIR, || {
        let status = drive.status()?;
        let noticed = status["providers"].as_array().into_iter().flatten();
        let failed = noticed.filter(|provider| provider["state"] == "failed").count();
        let r = &status["redundancy"];
        Ok(failed == 2 && r["stripes"] == 0 && r["at_risk_bytes"] == 0 && r["striped_bytes"] == 0)
    })
    .with_context(|| told(&drive))?;
    ctx.note(format!("copies again after {:.1} s: {}", start.elapsed().as_secs_f64(), redundancy(&drive)?));
    same(ctx, "with three providers", &drive, &tree)?;
    drive.sync_wait(SYNC)?;
    drive.unmount()?;
    Ok(())
}

/// Two newcomers take over what two providers lost.
fn repaired(ctx: &Context, drive: &Drive, network: &Network, lost: &[usize]) -> Result<()> {
    for number in [6, 7] {
        let place = format!("place-{number}");
        let added =
            drive.command_with(&["provider", "add", &network.addresses[number - 1], "--place", &place])?;
        ensure!(added.status.success(), "provider add: {}", added.stderr);
        let told = drive.status()?["providers"].to_string();
        ensure!(told.contains(&format!("place={place}")), "status does not tell the tag: {told}");
    }
    let start = Instant::now();
    let gone: Vec<String> = lost.iter().map(|number| network.peer(*number)).collect::<Result<_>>()?;
    wait_until("every stripe being whole at live providers", REPAIR, || {
        let status = drive.status()?;
        let r = &status["redundancy"];
        let noticed = status["providers"].as_array().into_iter().flatten().all(|provider| {
            provider["state"] == "ok" || gone.iter().any(|peer| provider["peer_id"] == peer.as_str())
        });
        let cheap = r["expansion"].as_f64().is_some_and(|times| times < 1.8);
        Ok(noticed && cheap && r["stripes"] == 2 && r["stripes_full"] == 2 && r["at_risk_bytes"] == 0)
    })
    .with_context(|| told(drive))?;
    ctx.note(format!("repaired after {:.1} s: {}", start.elapsed().as_secs_f64(), redundancy(drive)?));
    let newcomers = stored(network, &[6, 7])?;
    ensure!(newcomers >= 4 * PART_BYTES, "the newcomers keep {newcomers} bytes");
    Ok(())
}
