//! Repair with the owner's machine off: providers die one after another, watchers place anew, and the owner comes back to it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::compare::Tree;
use holdfast_tests::harness::{Context, Drive, InitOptions, Network, Process, run, wait_until};
use serde_json::{Value, json};

use crate::{ensure_same, inputs, remove_tree};

const SYNC: Duration = Duration::from_secs(120);
const REPAIR: Duration = Duration::from_secs(90);

/// A watcher's process, and its folder.
struct Watcher {
    process: Process,
    folder: PathBuf,
}

impl Watcher {
    fn start(ctx: &Context, capability: &Path, newcomers: &[String]) -> Result<Watcher> {
        let mut command = Command::new(ctx.bin("holdfast")?);
        command.args(["watch", "--json", "--interval", "1", "--mdns", "off"]);
        for address in newcomers {
            command.arg("--provider").arg(address);
        }
        let process =
            Process::start(command.arg(capability), &capability.with_extension("out"), &ctx.registry)?;
        Ok(Watcher { process, folder: capability.with_extension("watch") })
    }

    /// What its last look found.
    fn status(&self) -> Result<Value> {
        let path = self.folder.join("status");
        match std::fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
            Err(error) => Err(error.into()),
        }
    }

    /// How many slots all its looks placed.
    fn repaired(&self) -> usize {
        let output = self.process.output();
        let looks = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        looks.filter_map(|look| look["repaired"].as_array().map(Vec::len)).sum()
    }

    fn told(&self) -> String {
        let log = std::fs::read_to_string(self.folder.join("watch.log")).unwrap_or_default();
        let end = |text: &str| {
            text.chars().rev().take(3_000).collect::<Vec<_>>().into_iter().rev().collect::<String>()
        };
        format!("{}\n{}", end(&self.process.output()), end(&log))
    }
}

pub(crate) fn granted(ctx: &Context, drive: &Drive, name: &str, more: &[&str]) -> Result<PathBuf> {
    // The name of its folder is that of the file with `.watch` behind it.
    let path = ctx.dir.join(name);
    let file = path.display().to_string();
    let words = [&["watch", "grant", "--out", &file, "--label", name, "--silent", "2"], more].concat();
    let done = drive.command_with(&words)?;
    ensure!(done.status.success(), "watch grant: {}{}", done.stdout, done.stderr);
    Ok(path)
}

pub(crate) fn watches(drive: &Drive) -> Result<Vec<Value>> {
    let done = drive.command_with(&["watch", "list", "--json"])?;
    let report: Value = serde_json::from_str(&done.stdout)?;
    Ok(report["watches"].as_array().cloned().unwrap_or_default())
}

/// Slots that these providers keep.
pub(crate) fn kept(network: &Network, providers: &[usize]) -> Result<usize> {
    let mut slots = 0;
    for number in providers {
        slots += std::fs::read_dir(network.folder(*number).join("slots"))?.count();
    }
    Ok(slots)
}

/// Every watcher sees nothing lost and everything proven.
fn wait_well(ctx: &Context, watchers: &[&Watcher], slots: u64) -> Result<()> {
    let start = Instant::now();
    for watcher in watchers {
        wait_until("nothing being lost any more", REPAIR, || {
            let status = watcher.status()?;
            let well = status["well"].as_u64().unwrap_or(0);
            Ok(status["slots"] == slots && status["lost"] == 0 && well >= slots)
        })
        .with_context(|| watcher.told())?;
    }
    ctx.note(format!("well after {:.1} s", start.elapsed().as_secs_f64()));
    Ok(())
}

/// Until the watchers have noticed that a provider is gone.
fn wait_noticed(watchers: &[&Watcher], peer: &str) -> Result<()> {
    for watcher in watchers {
        wait_until("a provider's silence being long enough", REPAIR, || {
            Ok(watcher.status()?["silent"][peer].as_u64().is_some_and(|seconds| seconds >= 2))
        })
        .with_context(|| watcher.told())?;
    }
    Ok(())
}

pub fn owner_is_away(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 6)?;
    let options = InitOptions {
        providers: network.addresses[..3].to_vec(),
        config: json!({"limits": {
            "audit_interval_seconds": 3,
            "seal_after_idle_seconds": 1,
            "provider_silent_seconds_max": 6,
        }}),
        ..InitOptions::default()
    };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    for part in 0..3 {
        inputs::random_files(&drive.mountpoint.join(format!("data/{part}")), 4, 128 << 10, part)?;
        drive.sync_wait(SYNC)?;
    }
    let attic = granted(ctx, &drive, "attic", &["--newcomers"])?;
    let cellar = granted(ctx, &drive, "cellar", &["--newcomers"])?;
    wait_until("providers having what watchers need", SYNC, || {
        let watches = watches(&drive)?;
        Ok(watches.len() == 2 && watches.iter().all(|watch| watch["bundle_with"] == 3))
    })
    .with_context(|| drive.daemon_log())?;
    let tree = Tree::read(&drive.mountpoint)?;
    let pieces = drive.status()?["pieces"]["total"].as_u64().context("no pieces")?;
    drive.unmount()?;
    let slots = pieces * 3;
    ensure!(kept(&network, &[1, 2, 3])? as u64 == slots, "not every piece has three copies");

    // From here on the owner is off. One watcher is told of the newcomers; the other learns of them from it.
    let first = Watcher::start(ctx, &attic, &network.addresses[3..])?;
    let second = Watcher::start(ctx, &cellar, &[])?;
    let watchers = [&first, &second];
    wait_well(ctx, &watchers, slots)?;
    for lost in [1, 2, 3] {
        network.kill(lost)?;
        wait_noticed(&watchers, &network.peer(lost)?)?;
        wait_well(ctx, &watchers, slots)?;
        let placed = first.repaired() + second.repaired();
        ctx.note(format!(
            "provider {lost} was lost; {placed} slots placed, {} by the first",
            first.repaired()
        ));
        let expected = pieces * lost as u64;
        ensure!(placed as u64 == expected, "{placed} slots were placed, and {expected} were lost");
        ensure!(
            kept(&network, &[4, 5, 6])? as u64 == expected,
            "the newcomers keep others than the lost slots"
        );
    }
    drop((first, second));

    // The owner comes back. All whom it knew are gone; of the newcomers one is named.
    drive.mount()?;
    let added = drive.command_with(&["provider", "add", &network.addresses[3]])?;
    ensure!(added.status.success(), "provider add: {}", added.stderr);
    // While it was away nobody could name other anchors: which of them will not come back is for the owner to say.
    for lost in [1, 2, 3] {
        let removed = drive.command_with(&["provider", "remove", &network.peer(lost)?])?;
        ensure!(removed.status.success(), "provider remove: {}", removed.stderr);
    }
    let start = Instant::now();
    wait_until("the owner taking over what was placed", REPAIR, || {
        let status = drive.status()?;
        let watches = watches(&drive)?;
        let open: u64 = watches.iter().filter_map(|watch| watch["entries_open"].as_u64()).sum();
        Ok(status["pieces"]["full"] == pieces && status["safety"]["level"] == "safe" && open == 0)
    })
    .with_context(|| format!("{}\n{}", drive.status_text(), drive.daemon_log()))?;
    ctx.note(format!("taken over after {:.1} s", start.elapsed().as_secs_f64()));
    ensure!(kept(&network, &[4, 5, 6])? as u64 == slots, "something was placed twice");
    drive.verify(false)?;
    let evicted = drive.command_with(&["evict"])?;
    ensure!(evicted.status.success(), "evict: {}", evicted.stderr);
    ensure_same("after the return", &tree.differences(&Tree::read(&drive.mountpoint)?))?;
    // And it goes on as ever.
    std::fs::write(drive.mountpoint.join("later"), b"and writable")?;
    drive.sync_wait(SYNC)?;
    drive.unmount()?;
    Ok(())
}

/// A watcher whose capability was taken back does nothing any more, whatever it has kept.
pub fn taken_back(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 3)?;
    let options = InitOptions {
        survive: 1,
        providers: network.addresses[..2].to_vec(),
        config: json!({"limits": {"seal_after_idle_seconds": 1}}),
    };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    inputs::random_files(&drive.mountpoint.join("data"), 2, 64 << 10, 1)?;
    drive.sync_wait(SYNC)?;
    let attic = granted(ctx, &drive, "attic", &["--newcomers"])?;
    let known = |drive: &Drive| Ok(watches(drive)?.iter().all(|watch| watch["bundle_with"] == 2));
    wait_until("providers having what the watcher needs", SYNC, || known(&drive))?;
    let once = || {
        let mut command = Command::new(ctx.bin("holdfast")?);
        command.args(["watch", "--json", "--once", "--mdns", "off", "--provider", &network.addresses[2]]);
        run(command.arg(&attic), SYNC)
    };
    let looked = once()?;
    let report: Value = serde_json::from_str(&looked.stdout).with_context(|| looked.stderr.clone())?;
    ensure!(report["lost"] == 0 && report["well"] == report["slots"], "the first look found {report}");
    let revoke = drive.command_with(&["watch", "revoke", "attic", "--json"])?;
    ensure!(revoke.status.success(), "watch revoke: {}", revoke.stderr);
    wait_until("the watcher hearing that it may no more", SYNC, || {
        let looked = once()?;
        let report: Value = serde_json::from_str(&looked.stdout)?;
        Ok(report["ended"].is_string())
    })?;
    network.kill(1)?;
    drive.unmount()?;
    std::thread::sleep(Duration::from_secs(3));
    for _ in 0..2 {
        let report: Value = serde_json::from_str(&once()?.stdout)?;
        ensure!(report["repaired"] == json!([]), "it placed something: {report}");
        std::thread::sleep(Duration::from_secs(2));
    }
    ensure!(kept(&network, &[3])? == 0, "the third provider keeps something");
    Ok(())
}

/// Both of the drive's providers are gone, its owner's machine as well: the words, and a provider that a watcher found.
pub fn words_are_enough(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 4)?;
    let quick = json!({"limits": {"seal_after_idle_seconds": 1, "audit_interval_seconds": 3}});
    let options =
        InitOptions { survive: 1, providers: network.addresses[..2].to_vec(), config: quick.clone() };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    inputs::random_files(&drive.mountpoint.join("data"), 4, 128 << 10, 1)?;
    let attic = granted(ctx, &drive, "attic", &["--newcomers"])?;
    drive.sync_wait(SYNC)?;
    wait_until("providers having what the watcher needs", SYNC, || {
        let slots = drive.status()?["pieces"]["total"].as_u64().unwrap_or(0);
        let known = watches(&drive)?.iter().all(|watch| watch["bundle_with"] == 2);
        Ok(known && slots > 0)
    })?;
    let tree = Tree::read(&drive.mountpoint)?;
    let slots = drive.status()?["pieces"]["total"].as_u64().context("no pieces")? * 2;
    drive.unmount()?;
    remove_tree(&drive.home)?;
    let watcher = Watcher::start(ctx, &attic, &network.addresses[2..])?;
    for lost in [1, 2] {
        network.kill(lost)?;
        wait_noticed(&[&watcher], &network.peer(lost)?)?;
        wait_well(ctx, &[&watcher], slots)?;
    }
    let restored = Drive::existing(ctx, "restored", ctx.dir.join("restored.home"), drive.secrets.clone());
    let restore = |words: &[&str]| {
        let mut command = Command::new(ctx.bin("holdfast")?);
        command
            .arg("--home")
            .arg(&restored.home)
            .args(["restore", "--no-mount", "--mdns", "off"])
            .args(words);
        command.arg("--peer").arg(&network.addresses[2]);
        run(
            command.arg("--words-file").arg(&drive.secrets).arg("--passphrase-file").arg(&drive.secrets),
            SYNC,
        )
    };
    let cautious = restore(&[])?;
    ensure!(!cautious.status.success(), "none of those that the head names is there, and it was believed");
    let found = restore(&["--minority"])?;
    ensure!(found.status.success(), "restore: {}{}", found.stdout, found.stderr);
    restored.mount()?;
    ensure_same("from the words alone", &tree.differences(&Tree::read(&restored.mountpoint)?))
        .with_context(|| restored.daemon_log())?;
    restored.unmount()?;
    Ok(())
}
