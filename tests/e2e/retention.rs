//! Old snapshots go, and with them the room that only they needed: on this disk and with the providers.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use holdfast_tests::compare::Tree;
use holdfast_tests::harness::{Context, Drive, InitOptions, Network, RestoreFrom};
use serde_json::{Value, json};

use crate::quota::folder_bytes;
use crate::{ensure_same, inputs};

const MIB: u64 = 1 << 20;
const SYNC: Duration = Duration::from_secs(300);
const PROVIDERS: usize = 2;
const LIMIT: Duration = Duration::from_secs(240);

/// One look that keeps nothing but names and the newest.
fn prune(drive: &Drive) -> Result<Value> {
    let words = ["prune", "--all-hours", "0", "--hourly", "0", "--daily", "0", "--weekly", "0", "--json"];
    let done = drive.command_with(&words)?;
    ensure!(done.status.success(), "{done:?}\n{}", drive.daemon_log());
    Ok(serde_json::from_str(&done.stdout)?)
}

/// Looks until nothing is left to do.
pub(crate) fn prune_all(drive: &Drive) -> Result<(u64, u64)> {
    let start = Instant::now();
    let (mut freed, mut moved) = (0, 0);
    loop {
        let report = prune(drive)?;
        let number = |name: &str| report[name].as_u64().with_context(|| format!("{name} in {report}"));
        freed += number("unneeded_bytes")?;
        moved += number("moved_bytes")?;
        let busy = ["unneeded_pieces", "moved_bytes", "waiting_pieces", "waiting_copies"];
        let mut left = report["more"] == true;
        for name in busy {
            left |= number(name)? > 0;
        }
        if !left {
            return Ok((freed, moved));
        }
        if start.elapsed() > LIMIT {
            bail!("{report}\n{}\n{}", drive.status_text(), drive.daemon_log());
        }
        drive.sync_wait(SYNC)?;
        std::thread::sleep(Duration::from_secs(2));
    }
}

pub(crate) fn kept_by_providers(network: &Network) -> u64 {
    (1..=PROVIDERS).map(|number| folder_bytes(&network.folder(number))).sum()
}

/// Files of two kinds in turn, so that every piece holds of both.
pub(crate) fn alternate(dir: &Path, seed: u64) -> Result<()> {
    for n in 0..60 {
        inputs::random_files(&dir.join(format!("stays/{n}")), 1, 60_000, seed + n)?;
        inputs::random_files(&dir.join(format!("goes/{n}")), 1, 200_000, seed + 1000 + n)?;
    }
    Ok(())
}

pub fn room_comes_free(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, PROVIDERS)?;
    let config = json!({"policy": {"retention": {"grace_hours": 0}}});
    let options = InitOptions { survive: 1, providers: network.addresses.clone(), config };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    let at = &drive.mountpoint;
    inputs::random_files(&at.join("old"), 4, 1_000_000, 1)?;
    let named = drive.command_with(&["snapshot", "kept"])?;
    ensure!(named.status.success(), "{named:?}");
    let kept = Tree::read(at)?;
    std::fs::remove_dir_all(at.join("old"))?;
    alternate(at, 100)?;
    inputs::random_files(&at.join("big"), 3, 12_000_000, 2)?;
    drive.sync_wait(SYNC)?;
    std::fs::remove_dir_all(at.join("goes"))?;
    std::fs::remove_dir_all(at.join("big"))?;
    drive.sync_wait(SYNC)?;
    let live = Tree::read(at)?;
    let before =
        (folder_bytes(&drive.home), folder_bytes(&drive.home.join("pieces")), kept_by_providers(&network));

    let first = prune(&drive)?;
    ensure!(first["dropped_snapshots"].as_u64() > Some(0), "{first}");
    // In the middle of it.
    drive.kill()?;
    drive.mount()?;
    ensure_same("after a kill", &live.differences(&Tree::read(at)?))?;
    // What was moved lets its old pieces go once a published head looks for it in the new ones.
    drive.sync_wait(SYNC)?;
    let (freed, moved) = prune_all(&drive)?;
    let before_the_kill = |name: &str| first[name].as_u64().context("a figure");
    let (freed, moved) =
        (freed + before_the_kill("unneeded_bytes")?, moved + before_the_kill("moved_bytes")?);
    let after =
        (folder_bytes(&drive.home), folder_bytes(&drive.home.join("pieces")), kept_by_providers(&network));
    ctx.note(format!(
        "home {} -> {} MiB, its pieces {} -> {} MiB, providers {} -> {} MiB; {} MiB were not needed, {} MiB packed anew",
        before.0 / MIB,
        after.0 / MIB,
        before.1 / MIB,
        after.1 / MIB,
        before.2 / MIB,
        after.2 / MIB,
        freed / MIB,
        moved / MIB,
    ));
    // 36 MB of large files went whole, and 12 MB of small ones from between those that stay.
    ensure!(moved > 2 * MIB, "nothing was packed anew");
    ensure!(after.1 + 40 * MIB < before.1, "the pieces here hold {} of {} bytes still", after.1, before.1);
    ensure!(after.0 < before.0, "the home folder has grown");
    ensure!(after.2 + 80 * MIB < before.2, "the providers hold {} of {} bytes still", after.2, before.2);

    ensure_same("live", &live.differences(&Tree::read(at)?))?;
    ensure_same("the kept snapshot", &kept.differences(&Tree::read(&at.join(".snapshots/kept"))?))?;
    drive.verify(true)?;
    // From the providers alone, here and on another machine.
    ensure!(drive.command_with(&["evict"])?.status.success(), "{}", drive.status_text());
    drive.unmount()?;
    drive.mount()?;
    ensure_same("live, from the providers", &live.differences(&Tree::read(at)?))?;
    ensure_same("kept, from the providers", &kept.differences(&Tree::read(&at.join(".snapshots/kept"))?))?;
    drive.verify(true)?;
    drive.unmount()?;
    let config = json!({"policy": {"retention": {"grace_hours": 0}}});
    let from = RestoreFrom { secrets: &drive.secrets, peers: &network.addresses[..1], config };
    let (restored, _) = Drive::restore(ctx, "restored", &from)?;
    ensure_same("restored", &live.differences(&Tree::read(&restored.mountpoint)?))?;
    std::fs::remove_dir_all(restored.mountpoint.join("stays"))?;
    restored.sync_wait(SYNC)?;
    let there = kept_by_providers(&network);
    let refused = prune(&restored)?;
    ensure!(refused["kept_until"].as_u64().is_some() && refused["dropped_snapshots"] == 0, "{refused}");
    ensure!(
        kept_by_providers(&network) >= there,
        "something was given up within 30 days of a change of term"
    );
    restored.unmount()?;
    Ok(())
}
