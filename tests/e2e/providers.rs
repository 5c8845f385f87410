//! Providers that are lost, that lie, that rot.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use holdfast::home::{Home, Passphrase};
use holdfast_tests::compare::Tree;
use holdfast_tests::harness::{
    Context, Drive, InitOptions, Network, ProviderHandle, RestoreFrom, wait_until,
};
use serde_json::{Value, json};

use crate::{ensure_same, inputs, remove_tree};

/// Commits, and so pieces at least, of a drive that several providers keep.
const PARTS: u64 = 6;
const SYNC: Duration = Duration::from_secs(300);
const REPAIR: Duration = Duration::from_secs(240);
/// Every FUSE request is answered within 10 s; a read of a file is a few of them.
const ONE_FILE: Duration = Duration::from_secs(30);

fn audited_often() -> Value {
    json!({"limits": {
        "audit_interval_seconds": 3,
        "seal_after_idle_seconds": 2,
        "provider_silent_seconds_max": 30
    }})
}

/// A drive with some tens of MB, Placed, then lost and restored: it has no local copies, so that every read and every
/// audit is of the providers alone.
fn cold_drive(ctx: &Context, network: &Network) -> Result<(Drive, Tree)> {
    let options =
        InitOptions { providers: network.addresses.clone(), config: audited_often(), ..Default::default() };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    inputs::oddities(&drive.mountpoint.join("oddities"))?;
    // Several pieces, so that every provider keeps some of them.
    for part in 0..PARTS {
        let folder = drive.mountpoint.join(format!("data/{part}"));
        inputs::random_files(&folder, 96 / PARTS as usize, 512 << 10, part)?;
        drive.sync_wait(SYNC)?;
    }
    let tree = Tree::read(&drive.mountpoint)?;
    drive.unmount()?;
    remove_tree(&drive.home)?;
    let from =
        RestoreFrom { secrets: &drive.secrets, peers: &network.addresses[..2], config: audited_often() };
    let (restored, took) = Drive::restore(ctx, "restored", &from)?;
    ctx.note(format!(
        "{} entries, {} MB; restored in {:.1} s",
        tree.entries.len(),
        tree.bytes >> 20,
        took.as_secs_f64()
    ));
    Ok((restored, tree))
}

/// What status says of a provider.
fn provider<'a>(status: &'a Value, peer: &str) -> Option<&'a Value> {
    status["providers"].as_array()?.iter().find(|provider| provider["peer_id"] == peer)
}

fn state(drive: &Drive, peer: &str) -> Result<String> {
    let status = drive.status()?;
    let provider = provider(&status, peer).context("status does not name the provider")?;
    Ok(provider["state"].as_str().unwrap_or_default().to_owned())
}

/// All pieces have three copies, none of them with these.
fn wait_repaired(ctx: &Context, drive: &Drive, lost: &[String]) -> Result<()> {
    let start = Instant::now();
    let told = |drive: &Drive| format!("{}\n{}", drive.status_text(), drive.daemon_log());
    wait_until("every piece back at three copies", REPAIR, || {
        let status = drive.status()?;
        let mut copies = 0;
        for provider in status["providers"].as_array().into_iter().flatten() {
            if !lost.iter().any(|peer| provider["peer_id"] == peer.as_str()) {
                copies += provider["copies"].as_u64().unwrap_or(0);
            }
        }
        let pieces = status["pieces"]["total"].as_u64().unwrap_or(0);
        let mut noticed = true;
        for peer in lost {
            let state = provider(&status, peer).map(|p| p["state"].clone()).unwrap_or_default();
            noticed &= state == "failed" || state == "suspect";
        }
        Ok(noticed && pieces > 0 && status["pieces"]["full"] == pieces && copies >= 3 * pieces)
    })
    .with_context(|| told(drive))?;
    ctx.note(format!("repaired after {:.1} s", start.elapsed().as_secs_f64()));
    let status = drive.status()?;
    ctx.note(format!("pieces: {}", status["pieces"]));
    for peer in lost {
        let now = state(drive, peer)?;
        let reason = provider(&status, peer).map(|p| p["reason"].to_string()).unwrap_or_default();
        ctx.note(format!("status says of {peer}: {now}, {reason}"));
    }
    let events: Vec<&str> = status["events"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|event| event["text"].as_str())
        .collect();
    ensure!(!events.is_empty(), "status tells no story");
    for text in events.iter().rev().take(6).rev() {
        ctx.note(format!("event: {text}"));
    }
    Ok(())
}

pub fn two_of_five_lost(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 5)?;
    let (drive, tree) = cold_drive(ctx, &network)?;
    let lost = [network.peer(2)?, network.peer(4)?];
    for number in [2, 4] {
        network.kill(number)?;
        remove_tree(&network.folder(number))?;
    }
    ctx.note("providers 2 and 4 are killed, their folders deleted");
    read_all(ctx, &drive, &tree)?;
    ensure_same("with two providers gone", &tree.differences(&Tree::read(&drive.mountpoint)?))?;
    wait_repaired(ctx, &drive, &lost)?;
    // The drive goes on: what is written now is Placed with those that are left.
    std::fs::write(drive.mountpoint.join("after"), b"still a drive")?;
    drive.sync_wait(SYNC)?;
    drive.unmount()?;
    Ok(())
}

/// Bits flip in all that one provider stores: audits find it (there is no local copy to compare with), it is replaced.
pub fn flipped_bits(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 4)?;
    let (drive, tree) = cold_drive(ctx, &network)?;
    let peer = network.peer(1)?;
    wait_until("a first audit that is passed", Duration::from_secs(60), || {
        Ok(provider(&drive.status()?, &peer).is_some_and(|p| p["last_audit_passed"] == true))
    })
    .with_context(|| drive.status_text())?;
    let flipped = flip_bits(&network.folder(1).join("slots"))?;
    ensure!(flipped > 0, "the provider stores nothing");
    ctx.note(format!("{flipped} bits flipped at provider 1"));
    let start = Instant::now();
    wait_until("the provider being failed", REPAIR, || Ok(state(&drive, &peer)? == "failed"))
        .with_context(|| format!("{}\n{}", drive.status_text(), drive.daemon_log()))?;
    ctx.note(format!("found after {:.1} s", start.elapsed().as_secs_f64()));
    wait_repaired(ctx, &drive, &[peer])?;
    ensure_same("after the repair", &tree.differences(&Tree::read(&drive.mountpoint)?))?;
    drive.unmount()?;
    Ok(())
}

/// Reads every large file, each within its bound, whatever providers do.
fn read_all(ctx: &Context, drive: &Drive, tree: &Tree) -> Result<()> {
    let mut slowest = Duration::ZERO;
    for path in tree.entries.keys().filter(|path| path.starts_with("data")) {
        let full = drive.mountpoint.join(path);
        if full.is_file() {
            let start = Instant::now();
            std::fs::read(&full)
                .with_context(|| format!("reading {}\n{}", path.display(), drive.daemon_log()))?;
            slowest = slowest.max(start.elapsed());
        }
    }
    ctx.note(format!("all files read, the slowest in {:.2} s", slowest.as_secs_f64()));
    ensure!(slowest < ONE_FILE, "one file took {:.1} s", slowest.as_secs_f64());
    Ok(())
}

/// Three providers that held copies turn silent, send garbage, or lie in valid frames, under their own identities and
/// addresses: reads go on, each within its bound, and all three are replaced.
pub fn gone_bad(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 6)?;
    let (drive, tree) = cold_drive(ctx, &network)?;
    let mut bad = Vec::new();
    let mut lost = Vec::new();
    // Two at a time: more would be more than the drive is asked to survive.
    for (number, mode) in [(1, "silent"), (2, "garbage"), (3, "liar")] {
        network.stop(number)?;
        bad.push(turn(ctx, &network, number, mode)?);
        lost.push(network.peer(number)?);
        ctx.note(format!("provider {number} is now {mode}"));
        if number == 1 {
            continue;
        }
        read_all(ctx, &drive, &tree)?;
        wait_repaired(ctx, &drive, &lost)?;
        // The next one turns when the bad ones decide nothing any more, the anchors before included.
        wait_until("others deciding who writes the drive", REPAIR, || {
            let term = &drive.status()?["term"];
            let sets = [&term["anchors"], &term["former"]].into_iter().filter_map(Value::as_array);
            Ok(!sets.flatten().any(|peer| lost.iter().any(|lost| peer == lost.as_str())))
        })
        .with_context(|| format!("{}\n{}", drive.status_text(), drive.daemon_log()))?;
    }
    ensure_same("with bad providers", &tree.differences(&Tree::read(&drive.mountpoint)?))?;
    std::fs::write(drive.mountpoint.join("after"), b"still a drive")?;
    ctx.note(format!("sync --wait took {:.1} s", drive.sync_wait(SYNC)?.as_secs_f64()));
    drive.unmount()?;
    Ok(())
}

/// Two providers that keep, prove and countersign everything, and give nothing to who reads: other bytes, or a refusal. Nobody reads
/// (all that is in the drive is on this machine too); both are found by their audits' own reads, and replaced.
pub fn proves_and_gives_nothing(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 5)?;
    let options =
        InitOptions { providers: network.addresses.clone(), config: audited_often(), ..Default::default() };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    for part in 0..PARTS {
        inputs::random_files(&drive.mountpoint.join(format!("data/{part}")), 2, 300 << 10, part)?;
        drive.sync_wait(SYNC)?;
    }
    let words = drive.status()?["audits"]["in_words"].to_string();
    ensure!(words.contains("kept and not given is noticed"), "status says of audits: {words}");
    let owner = data_encoding::HEXLOWER.encode(&network_seed(&drive)?);
    let mut bad = Vec::new();
    let mut lost = Vec::new();
    for (number, mode) in [(1, "two-faced"), (2, "refusing")] {
        network.stop(number)?;
        let folder = network.folder(number).display().to_string();
        bad.push(turn_with(
            ctx,
            &network,
            number,
            &["--mode", mode, "--folder", &folder, "--owner", &owner],
        )?);
        let (peer, start) = (network.peer(number)?, Instant::now());
        wait_until("a provider that gives nothing being failed", REPAIR, || {
            Ok(state(&drive, &peer)? == "failed")
        })
        .with_context(|| format!("{}\n{}", drive.status_text(), drive.daemon_log()))?;
        ctx.note(format!("provider {number} ({mode}) is found after {:.1} s", start.elapsed().as_secs_f64()));
        let status = drive.status()?;
        let reason = provider(&status, &peer).map(|p| p["reason"].to_string()).unwrap_or_default();
        ensure!(
            reason.contains("it proves the slot, and gives other bytes, or none"),
            "the reason is {reason}"
        );
        lost.push(peer);
        wait_repaired(ctx, &drive, &lost)?;
    }
    drive.unmount()?;
    Ok(())
}

/// The seed of the identity under which a drive's own machine is on the network.
fn network_seed(drive: &Drive) -> Result<[u8; 32]> {
    let passphrase = Passphrase::from_files(Some(&drive.secrets))?.context("no passphrase")?;
    let unlocked = Home::open(&drive.home)?.unlock(&passphrase)?;
    Ok(blake3::derive_key("holdfast 2026 device network identity v1", &unlocked.store_keys().index))
}

/// A hostile process in the place of a stopped provider.
fn turn(ctx: &Context, network: &Network, number: usize, mode: &str) -> Result<ProviderHandle> {
    turn_with(ctx, network, number, &["--mode", mode])
}

fn turn_with(ctx: &Context, network: &Network, number: usize, words: &[&str]) -> Result<ProviderHandle> {
    let address = network.addresses.get(number - 1).context("no such provider")?;
    let listen = address.rsplit_once("/p2p/").context("an address without identity")?.0;
    let mut command = Command::new(ctx.bin("hostile-provider")?);
    command.arg("--identity").arg(network.folder(number).join("identity"));
    command.args(["--listen", listen]).args(words);
    ProviderHandle::start(ctx, &mut command, &ctx.dir.join(format!("hostile-{number}.log")))
}

/// One bit in each 4 KiB of every file.
pub fn flip_bits(dir: &Path) -> Result<u64> {
    let mut flipped = 0;
    let mut todo: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                todo.push(entry?.path());
            }
            continue;
        }
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut at = 0;
        let mut byte = [0];
        while file.read_at(&mut byte, at)? == 1 {
            file.write_all_at(&[byte[0] ^ 1], at)?;
            flipped += 1;
            at += 4096;
        }
    }
    Ok(flipped)
}
