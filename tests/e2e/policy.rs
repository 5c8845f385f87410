//! A folder that survives more than its drive does.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::compare::Tree;
use holdfast_tests::harness::{Context, Drive, InitOptions, Network, RestoreFrom, wait_until};
use serde_json::{Value, json};

use crate::{ensure_same, inputs, remove_tree};

const SYNC: Duration = Duration::from_secs(240);
/// A majority of seven is there with three of them gone.
const PROVIDERS: usize = 7;
const ATTRIBUTE: &std::ffi::CStr = c"user.holdfast.survive";

/// Nobody is replaced while the test runs.
fn calmly() -> Value {
    json!({
        "policy": {"stripe_data_max": 0},
        "limits": {"audit_interval_seconds": 5, "seal_after_idle_seconds": 2, "provider_silent_seconds_max": 3600}
    })
}

fn attribute(path: &Path) -> Result<String> {
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    let mut buffer = [0u8; 16];
    // SAFETY: both names end with a zero, the buffer is valid for its length.
    let size = unsafe {
        libc::getxattr(name.as_ptr(), ATTRIBUTE.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
    };
    ensure!(size >= 0, "user.holdfast.survive: {}", std::io::Error::last_os_error());
    Ok(String::from_utf8_lossy(&buffer[..size as usize]).into_owned())
}

fn policy(drive: &Drive, words: &[&str]) -> Result<Value> {
    let all: Vec<&str> = ["policy", "--json"].iter().chain(words).copied().collect();
    let done = drive.command_with(&all)?;
    serde_json::from_str(&done.stdout)
        .with_context(|| format!("policy {words:?}: {}{}", done.stdout, done.stderr))
}

fn survives(drive: &Drive, path: &Path, losses: u8) -> Result<()> {
    let rung = drive.durability(path)?;
    let stands = (rung.starts_with("placed") || rung.starts_with("proven"))
        && rung.contains(&format!("survives={losses}"));
    ensure!(stands, "{} stands on {rung}, and {losses} losses are asked for", path.display());
    Ok(())
}

/// What status says of the pieces that have to survive so many losses.
fn class(status: &Value, losses: u64) -> Result<&Value> {
    let classes = status["redundancy"]["classes"].as_array().context("status shows no classes")?;
    classes.iter().find(|class| class["survive_losses"] == losses).context("status lacks a class")
}

fn all_full(drive: &Drive) -> Result<()> {
    let status = drive.status()?;
    for losses in [1, 3] {
        let class = class(&status, losses)?;
        ensure!(class["full"] == class["pieces"] && class["at_risk_bytes"] == 0, "{class}");
        ensure!(class["survives"].as_u64() >= Some(losses), "{class}");
        let expansion = class["expansion"].as_f64().unwrap_or_default();
        ensure!((expansion - (losses + 1) as f64).abs() < 0.2, "{class}");
    }
    ensure!(
        status["policy"]["survive_losses"] == 1 && status["policy"]["survive_losses_most"] == 3,
        "{status}"
    );
    Ok(())
}

pub fn folder_survives_more(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, PROVIDERS)?;
    let options = InitOptions { survive: 1, providers: network.addresses.clone(), config: calmly() };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    let at = |path: &str| drive.mountpoint.join(path);
    inputs::random_files(&at("before"), 1, 300 << 10, 4)?;
    drive.sync_wait(SYNC)?;
    ensure!(drive.status()?["redundancy"].get("classes").is_none(), "one class is no classes");

    std::fs::create_dir(at("safe"))?;
    let safe = at("safe").display().to_string();
    let bad = drive.command_with(&["policy", &safe, "--survive", "10"])?;
    ensure!(!bad.status.success(), "{}", bad.stdout);
    let set = policy(&drive, &[&safe, "--survive", "3"])?;
    ensure!(set["survive_losses"] == 3 && set["from"] == "itself", "{set}");
    ensure!(attribute(&at("safe"))? == "3", "the attribute says {}", attribute(&at("safe"))?);
    // Each in a commit, and so in pieces, of its own; the trees, which the folder needs, are packed apart from here on.
    for (seed, name) in [(1, "plain"), (2, "moves"), (3, "safe/new")] {
        inputs::random_files(&at(name), 4, 300 << 10, seed)?;
        drive.sync_wait(SYNC)?;
    }
    let below = policy(&drive, &[&at("safe/new").display().to_string()])?;
    ensure!(below["survive_losses"] == 3 && below["from"] == "folder", "{below}");
    ensure!(below["folder"].as_str().is_some_and(|folder| folder.ends_with("/safe")), "{below}");
    survives(&drive, &at("safe"), 3)?;
    survives(&drive, &at("plain"), 1)?;
    survives(&drive, &at("moves"), 1)?;
    all_full(&drive)?;
    // What comes into the folder is raised, and its neighbours are not.
    std::fs::rename(at("moves"), at("safe/moved"))?;
    drive.sync_wait(SYNC)?;
    survives(&drive, &at("safe/moved"), 3)?;
    survives(&drive, &at("plain"), 1)?;
    all_full(&drive)?;
    ctx.note(format!(
        "status: {}",
        drive.status_text().lines().filter(|l| l.contains("loss")).collect::<Vec<_>>().join(" | ")
    ));
    drive.verify(true)?;

    // Who writes the drive is decided by as many as the folder needs.
    wait_until("seven anchors", Duration::from_secs(120), || {
        let term = drive.status()?["term"].clone();
        let former = term["former"].as_array().is_none_or(Vec::is_empty);
        Ok(former && term["anchors"].as_array().is_some_and(|anchors| anchors.len() == PROVIDERS))
    })
    .with_context(|| drive.status_text())?;
    drive.sync_wait(SYNC)?;
    let tree = Tree::read(&at("safe"))?;
    drive.unmount()?;
    remove_tree(&drive.home)?;
    for number in [2, 4, 6] {
        network.kill(number)?;
        remove_tree(&network.folder(number))?;
    }
    ctx.note("the machine and three of seven providers are gone");
    let peers = [network.addresses[0].clone()];
    let from = RestoreFrom { secrets: &drive.secrets, peers: &peers, config: calmly() };
    let (restored, took) = Drive::restore(ctx, "restored", &from)?;
    ctx.note(format!("restored in {:.1} s", took.as_secs_f64()));
    let found = Tree::read(&restored.mountpoint.join("safe")).with_context(|| restored.daemon_log())?;
    ensure_same("with three providers gone", &tree.differences(&found))?;
    ensure!(attribute(&restored.mountpoint.join("safe"))? == "3", "the policy did not come back");
    let status = restored.status()?;
    ensure!(status["policy"]["survive_losses"] == 1, "{}", status["policy"]);
    ensure!(class(&status, 3)?["bytes"].as_u64() > Some(2 * 4 * (300 << 10)), "{}", status["redundancy"]);
    restored.unmount()?;
    Ok(())
}
