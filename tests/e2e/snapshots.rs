//! What was, at `.snapshots`, and back from there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::compare::Tree;
use holdfast_tests::harness::{Context, Drive, Finished, InitOptions, Network, RestoreFrom};
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
