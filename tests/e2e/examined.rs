//! What a person asks who wants to know: `verify --remote` reads it all, `doctor` says what is wrong and what to do.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::harness::{Context, Drive, InitOptions, Network};
use serde_json::{Value, json};

use crate::{inputs, providers::flip_bits};

const SYNC: Duration = Duration::from_secs(120);

fn said(drive: &Drive, code: i32, words: &[&str]) -> Result<Value> {
    let done = drive.command_with(words)?;
    let text = format!("{words:?}: {}{}\n{}", done.stdout, done.stderr, drive.daemon_log());
    ensure!(done.status.code() == Some(code), "not {code} but {}: {text}", done.status);
    serde_json::from_str(&done.stdout).context(text)
}

/// Bits that rot where no audit looks for hours are found by reading everything, and what they were in is made anew.
pub fn read_whole(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 4)?;
    let options = InitOptions {
        providers: network.addresses.clone(),
        config: json!({"limits": {"audit_interval_seconds": 36_000, "seal_after_idle_seconds": 2}}),
        ..Default::default()
    };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    for part in 0..2 {
        inputs::random_files(&drive.mountpoint.join(format!("data/{part}")), 8, 512 << 10, part)?;
        drive.sync_wait(SYNC)?;
    }
    let verify = ["verify", "--remote", "--json"];
    let whole = said(&drive, 0, &verify)?;
    let read = &whole["remote"];
    ensure!(read["read_copies"] == read["copies"] && read["read_bytes"] == read["bytes"], "{whole:#}");
    ensure!(read["bytes"].as_u64() >= Some(24 << 20) && read["blocks"].as_u64() > Some(0), "{whole:#}");

    let kept =
        (1..=4).find(|n| flip_bits(&network.folder(*n).join("slots")).is_ok_and(|flipped| flipped > 0));
    let number = kept.context("nobody stores anything")?;
    let peer = network.peer(number)?;
    let short = &peer[peer.len() - 8..];
    let found = said(&drive, 11, &verify)?;
    let named =
        |problem: &Value| problem.as_str().is_some_and(|text| text.contains(short) && text.contains("piece"));
    ensure!(found["remote"]["damaged"].as_u64() > Some(0), "{found:#}");
    ensure!(found["problems"].as_array().is_some_and(|all| all.iter().any(named)), "{found:#}");
    // With another provider there is room for what is lost.
    drive.wait_full(SYNC)?;
    let again = said(&drive, 0, &verify)?;
    ensure!(again["remote"]["damaged"] == 0, "{again:#}");
    drive.unmount()?;
    Ok(())
}

fn findings(report: &Value) -> Vec<&str> {
    let all = report["findings"].as_array().into_iter().flatten();
    all.filter_map(|finding| finding["check"].as_str()).collect()
}

/// A drive that is well, one provider that is gone, and the same drive when it is not mounted.
pub fn doctor(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 3)?;
    let options = InitOptions { providers: network.addresses.clone(), ..Default::default() };
    let drive = Drive::init(ctx, "drive", &options)?;
    let unmounted = said(&drive, 0, &["doctor", "--json"])?;
    ensure!(findings(&unmounted) == ["mount"] && unmounted["mounted"] == false, "{unmounted:#}");
    drive.mount()?;
    inputs::random_files(&drive.mountpoint.join("data"), 2, 100_000, 1)?;
    drive.sync_wait(SYNC)?;
    let well = said(&drive, 0, &["doctor", "--json"])?;
    ensure!(findings(&well).is_empty() && well["verdict"] == "well" && well["mounted"] == true, "{well:#}");
    network.stop(1)?;
    let one_gone = said(&drive, 10, &["doctor", "--json"])?;
    ensure!(findings(&one_gone).contains(&"silent"), "{one_gone:#}");
    drive.unmount()?;
    let unmounted = said(&drive, 10, &["doctor", "--json"])?;
    ensure!(findings(&unmounted) == ["silent", "mount"], "{unmounted:#}");
    // What a backup wrote into the bare folder is not on the drive.
    ensure!(drive.command_with(&["unmount", "--free-mountpoint"])?.status.success());
    std::fs::write(drive.mountpoint.join("backup"), "x")?;
    let wrong = said(&drive, 10, &["doctor", "--json"])?;
    ensure!(wrong["findings"].to_string().contains("bare mountpoint"), "{wrong:#}");
    std::fs::remove_file(drive.mountpoint.join("backup"))?;
    Ok(())
}
