//! What goes on for months: deals that end are renewed, and a disk that spoils a bit of what it keeps.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::compare::Tree;
use holdfast_tests::harness::{Context, Drive, InitOptions, Network, wait_until, wire};
use serde_json::json;

use crate::{ensure_same, inputs};

const SYNC: Duration = Duration::from_secs(240);
const RENEWED: Duration = Duration::from_secs(180);
const STRIPED: Duration = Duration::from_secs(180);
/// Where Debian's `faketime` has its library.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// Whether there is something to move the clock with.
pub fn can_move_the_clock() -> Result<()> {
    ensure!(Path::new(FAKETIME).exists(), "no faketime");
    Ok(())
}

/// The slots that a provider keeps, by deal.
fn slots(network: &Network, number: usize) -> Result<BTreeSet<String>> {
    let folder = network.folder(number).join("slots");
    let names = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Deals last 180 days, and are renewed when a third of it is left. Here all providers of the drive keep all of it, so that
/// there is nobody else to turn to, and the owner is away for the first 130 days.
pub fn deals_are_renewed(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 3)?;
    let quick = json!({"limits": {"seal_after_idle_seconds": 1, "audit_interval_seconds": 5}});
    let options =
        InitOptions { providers: network.addresses.clone(), config: quick, ..InitOptions::default() };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    inputs::random_files(&drive.mountpoint.join("data"), 16, 1 << 20, 1)?;
    drive.sync_wait(SYNC)?;
    let tree = Tree::read(&drive.mountpoint)?;
    drive.unmount()?;
    let before: Vec<BTreeSet<String>> = (1..=3).map(|n| slots(&network, n)).collect::<Result<_>>()?;
    (1..=3).try_for_each(|n| network.stop(n))?;

    for (name, value) in
        [("LD_PRELOAD", FAKETIME), ("FAKETIME", "+130d"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]
    {
        // SAFETY: this process has one thread.
        unsafe { std::env::set_var(name, value) };
    }
    (1..=3).try_for_each(|n| network.start_one(n))?;
    let bytes = wire::loopback_bytes()?;
    drive.mount()?;
    let took = wait_until("every deal being renewed", RENEWED, || {
        let mut old_ones = 0;
        for (number, before) in (1..).zip(&before) {
            let now = slots(&network, number)?;
            ensure!(now.len() >= before.len(), "provider {number} keeps {} of {}", now.len(), before.len());
            old_ones += now.intersection(before).count();
        }
        Ok(old_ones == 0)
    })
    .with_context(|| format!("{}\n{}", drive.status_text(), drive.daemon_log()))?;
    let moved = wire::loopback_bytes()? - bytes;
    ctx.note(format!("renewed after {:.1} s, {} KiB moved", took.as_secs_f64(), moved >> 10));
    ensure!(moved < 8 << 20, "{moved} bytes moved, where the providers have the data already");
    drive.sync_wait(SYNC)?;
    ensure_same("130 days later", &tree.differences(&Tree::read(&drive.mountpoint)?))?;
    ensure!(drive.status()?["safety"]["level"] == "safe", "{}", drive.status_text());
    drive.unmount()?;
    Ok(())
}

/// Files of the drive's pieces that are large enough for a stripe.
fn pieces(drive: &Drive) -> Result<Vec<PathBuf>> {
    let entries: Vec<_> = std::fs::read_dir(drive.home.join("pieces"))?.collect::<std::io::Result<_>>()?;
    let mut files = Vec::new();
    for entry in entries {
        if entry.metadata()?.len() > 1 << 20 {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// A bit flips on this disk after the data was placed. Were the damaged file coded into a stripe, the stripe would prove itself
/// in every audit, and the good copies be given up for it.
pub fn a_spoiled_piece_is_healed(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 5)?;
    let quick = json!({
        "policy": {"stripe_data_max": 3},
        "limits": {
            "audit_interval_seconds": 3, "seal_after_idle_seconds": 1, "stripe_after_seconds": 25, "surplus_grace_seconds": 3
        }
    });
    let options =
        InitOptions { providers: network.addresses.clone(), config: quick, ..InitOptions::default() };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    for part in 0..3 {
        inputs::random_files(&drive.mountpoint.join(format!("data/{part}")), 4, 1 << 20, part)?;
        drive.sync_wait(SYNC)?;
    }
    let tree = Tree::read(&drive.mountpoint)?;
    let files = pieces(&drive)?;
    let good: Vec<Vec<u8>> = files.iter().map(std::fs::read).collect::<std::io::Result<_>>()?;
    ensure!(drive.status()?["redundancy"]["stripes"] == 0, "a stripe was made before the bits flipped");
    for (file, good) in files.iter().zip(&good) {
        let mut spoiled = good.clone();
        let middle = spoiled.len() / 2;
        *spoiled.get_mut(middle).context("an empty piece")? ^= 1;
        std::fs::write(file, spoiled)?;
    }
    ctx.note(format!("a bit was flipped in each of {} files", files.len()));
    let told = || format!("{}\n{}", drive.status_text(), drive.daemon_log());
    let took = wait_until("the stripe, and no copies beside it", STRIPED, || {
        let status = drive.status()?;
        let stored = status["redundancy"]["stored_bytes"].as_u64().context("no figure")?;
        Ok(status["redundancy"]["stripes_full"] == 1 && stored < 12 << 21)
    })
    .with_context(told)?;
    ctx.note(format!("a stripe alone keeps them after {:.1} s", took.as_secs_f64()));
    for (file, good) in files.iter().zip(&good) {
        ensure!(std::fs::read(file)? == *good, "{} was not healed: {}", file.display(), told());
    }
    ensure!(drive.status_text().contains("healed"), "nobody was told: {}", drive.status_text());
    drive.unmount()?;
    for file in &files {
        std::fs::remove_file(file)?;
    }
    drive.mount()?;
    ensure_same("from the stripe alone", &tree.differences(&Tree::read(&drive.mountpoint)?))
        .with_context(told)?;
    drive.unmount()?;
    Ok(())
}
