//! What was, at `.snapshots`, and back from there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::compare::Tree;
use holdfast_tests::harness::{Context, Drive, Finished, InitOptions, Network, RestoreFrom, wait_until};
use serde_json::Value;

use crate::{ensure_same, inputs};

const SYNC: Duration = Duration::from_secs(300);

fn json(drive: &Drive, words: &[&str]) -> Result<Value> {
    let done: Finished = drive.command_with(words)?;
    ensure!(done.status.success(), "{words:?}: {done:?}");
    Ok(serde_json::from_str(&done.stdout)?)
}

fn names(dir: &Path) -> Result<BTreeSet<String>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Kinds and paths of a diff.
fn changes(report: &Value) -> Vec<String> {
    let line = |change: &Value| {
        format!("{} {}", change["kind"].as_str().unwrap_or("?"), change["path"].as_str().unwrap_or("?"))
    };
    report["changes"].as_array().into_iter().flatten().map(line).collect()
}

pub fn past_and_back(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 3)?;
    let options = InitOptions { providers: network.addresses.clone(), ..Default::default() };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    let at = &drive.mountpoint;
    inputs::oddities(&at.join("odd"))?;
    inputs::random_files(&at.join("photos"), 6, 400_000, 1)?;
    let kept = json(&drive, &["snapshot", "before", "--json"])?;
    let before = Tree::read(at)?;
    ensure!(kept["names"][0] == "before", "{kept}");
    fs::remove_dir_all(at.join("photos"))?;
    fs::write(at.join("note"), b"new")?;
    let now = json(&drive, &["snapshot", "--json"])?;
    let list = json(&drive, &["snapshots", "--json"])?;
    let list = list["snapshots"].as_array().context("no list")?;
    ensure!(list.len() >= 2 && list.last() == Some(&now), "{list:?}");

    ensure!(!names(at)?.contains(".snapshots"), "it is listed in the root");
    let shown = at.join(".snapshots");
    let label = kept["label"].as_str().context("label")?;
    ensure!(names(&shown)?.contains(label), "{label} is not in {:?}", names(&shown)?);
    for name in ["before", label, &kept["sequence"].to_string(), kept["cid"].as_str().context("cid")?] {
        ensure_same(name, &before.differences(&Tree::read(&shown.join(name))?))?;
    }
    ensure!(fs::metadata(shown.join("nothing")).is_err());
    let old = shown.join("before/photos/000/file-00000");
    let refused = |result: std::io::Result<()>| result.is_err_and(|e| e.raw_os_error() == Some(libc::EROFS));
    ensure!(refused(fs::write(&old, b"x")), "a snapshot was written");
    ensure!(refused(fs::remove_file(&old)), "a file of a snapshot was removed");
    ensure!(refused(fs::create_dir(shown.join("new"))), "a folder was made in .snapshots");
    ensure!(fs::create_dir(&shown).is_err() && fs::rename(at.join("note"), &shown).is_err());

    let report = json(&drive, &["diff", "before", &now["sequence"].to_string(), "--json"])?;
    let told = changes(&report);
    ensure!(
        told.contains(&"added note".to_owned()) && told.contains(&"removed photos".to_owned()),
        "{told:?}"
    );
    ensure!(told.len() == 9, "{told:?}");
    fs::write(at.join("note"), b"newer")?;
    let told = changes(&json(&drive, &["diff", label, "--json"])?);
    ensure!(told.contains(&"added note".to_owned()), "{told:?}");
    let told = changes(&json(&drive, &["diff", &now["sequence"].to_string(), "--json"])?);
    ensure!(told == ["changed note"], "{told:?}");

    // The kernel keeps a list until the folder is another; the root itself does not change here.
    names(&shown)?;
    fs::write(at.join("note"), b"newest")?;
    let newest = json(&drive, &["snapshot", "--json"])?;
    let label = newest["label"].as_str().context("label")?;
    std::thread::sleep(Duration::from_millis(1_500));
    ensure!(names(&shown)?.contains(label), "{label} is not in {:?}", names(&shown)?);

    let photos = at.join("photos");
    json(&drive, &["undelete", &photos.display().to_string(), "--json"])?;
    fs::remove_file(at.join("note"))?;
    ensure_same("undeleted", &before.differences(&Tree::read(at)?))?;
    let again = drive.command_with(&["undelete", &photos.display().to_string()])?;
    ensure!(!again.status.success(), "it was overwritten");
    let elsewhere = at.join("elsewhere/one");
    let one = photos.join("000/file-00001").display().to_string();
    json(
        &drive,
        &["undelete", &one, "--from", "before", "--to", &elsewhere.display().to_string(), "--json"],
    )?;
    ensure!(fs::read(&elsewhere)? == fs::read(&one)?);
    fs::remove_dir_all(at.join("elsewhere"))?;

    // Without local copies, and on another machine, the past is read from the providers.
    drive.sync_wait(SYNC)?;
    ensure!(drive.command_with(&["evict"])?.status.success(), "{}", drive.status_text());
    drive.unmount()?;
    drive.mount()?;
    ensure_same("from the providers", &before.differences(&Tree::read(&shown.join("before"))?))?;
    drive.verify(true)?;
    drive.unmount()?;
    let from = RestoreFrom { secrets: &drive.secrets, peers: &network.addresses[..1], config: Value::Null };
    let (restored, _) = Drive::restore(ctx, "restored", &from)?;
    let list = json(&restored, &["snapshots", "--json"])?;
    let label = list["snapshots"][0]["label"].as_str().context("a restored drive shows no snapshot")?;
    let shown = restored.mountpoint.join(".snapshots").join(label);
    ensure_same("restored", &before.differences(&Tree::read(&shown)?))?;
    restored.unmount()?;
    Ok(())
}

/// The disk loses what was written to one file before it is sealed. Whoever restores the drive meets an error there, not the older version, and
/// finds that one among the snapshots.
pub fn what_is_lacking(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 3)?;
    let options = InitOptions { providers: network.addresses.clone(), ..Default::default() };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    let (bad, good) = (drive.mountpoint.join("bad"), drive.mountpoint.join("good"));
    let old = vec![1; 300_000];
    fs::write(&bad, &old)?;
    fs::write(&good, b"good")?;
    drive.sync_wait(SYNC)?;
    let kept = json(&drive, &["snapshot", "whole", "--json"])?;
    drive.sync_wait(SYNC)?;

    let before = data_segments(&drive.home)?;
    fs::write(&bad, vec![2; 300_000])?;
    fs::File::open(&bad)?.sync_all()?;
    // The log says of itself that it was durable up to there with the next record: without one the damage would pass for a torn tail.
    fs::write(&good, b"good")?;
    fs::File::open(&good)?.sync_all()?;
    let spoiled = data_segments(&drive.home)?.into_iter().find_map(|(path, bytes)| {
        let old = before.get(&path).map_or(&[][..], Vec::as_slice);
        let changed = (0..bytes.len()).rev().find(|at| bytes[*at] != old.get(*at).copied().unwrap_or(0))?;
        Some((path, changed as u64 - 1000, bytes[changed - 1000]))
    });
    let (path, at, byte) = spoiled.context("no data segment was written")?;
    fs::OpenOptions::new().write(true).open(&path)?.write_all_at(&[!byte], at)?;
    // What the daemon still has in memory would do.
    drive.kill()?;
    drive.drop_mount()?;
    drive.mount()?;
    ensure!(eio(fs::read(&bad)), "what the disk lost was read");
    let lacking = json(&drive, &["snapshot", "--json"])?;
    let sequence = lacking["sequence"].clone();
    wait_until("the commit is published", SYNC, || {
        Ok(drive.status()?["commits"]["published"]["sequence"].as_u64() >= sequence.as_u64())
    })?;
    ensure!(eio(fs::read(drive.mountpoint.join(format!(".snapshots/{sequence}/bad")))));
    drive.kill()?;
    drive.drop_mount()?;

    let from = RestoreFrom { secrets: &drive.secrets, peers: &network.addresses[..1], config: Value::Null };
    let (restored, _) = Drive::restore(ctx, "restored", &from)?;
    let at = |name: &str| restored.mountpoint.join(name);
    ensure!(fs::metadata(at("bad"))?.len() == 300_000);
    ensure!(eio(fs::read(at("bad"))), "an older version was shown, or none");
    ensure!(restored.durability(&at("bad"))? == "missing", "{}", restored.durability(&at("bad"))?);
    ensure!(restored.daemon_log_text().contains("lacks its data"), "the log does not say why");
    ensure!(restored.status()?["restored"]["missing_files"] == 1, "{}", restored.status_text());
    ensure!(fs::read(at("good"))? == b"good");
    let whole = kept["sequence"].to_string();
    ensure!(fs::read(at(&format!(".snapshots/{whole}/bad")))? == old, "the complete commit");
    let found = restored.command_with(&["verify"])?;
    ensure!(!found.status.success() && format!("{found:?}").contains("in no commit"), "{found:?}");
    let bad = at("bad").display().to_string();
    wait_until("this machine writes", SYNC, || Ok(restored.status()?["state"] == "mounted"))?;
    fs::remove_file(&bad)?;
    let newest = restored.command_with(&["undelete", &bad, "--from", &sequence.to_string()])?;
    ensure!(!newest.status.success() && newest.stderr.contains("older"), "{newest:?}");
    fs::remove_file(&bad).ok();
    json(&restored, &["undelete", &bad, "--from", &whole, "--json"])?;
    ensure!(fs::read(&bad)? == old);
    // Nothing is waited for that cannot come; and with the file back nothing is lacking.
    restored.sync_wait(SYNC)?;
    restored.verify(false)?;
    restored.unmount()?;
    Ok(())
}

fn data_segments(home: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(home.join("log"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("data-") {
            found.insert(entry.path(), fs::read(entry.path())?);
        }
    }
    Ok(found)
}

fn eio<T>(result: std::io::Result<T>) -> bool {
    result.is_err_and(|error| error.raw_os_error() == Some(libc::EIO))
}
