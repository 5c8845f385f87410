//! The power-cut disk is trusted by the other tests, so it is tried first, with the same writers and the same audit.

use std::time::Duration;

use anyhow::{Result, ensure};
use holdfast_tests::harness::{Context, PowerDisk};
use holdfast_tests::ledger::{Crash, Ledger, Load, check};

const ROUNDS: u64 = 10;

/// On the bare disk nothing orders a name after its file's data, so fsync of a new file does not keep its name there.
/// The writers count on that (any journaling file system gives it); so only what is garbage counts here, plus that honest
/// fsyncs of folders keep what they covered.
pub fn power_cut_disk(ctx: &Context) -> Result<()> {
    let disk = PowerDisk::start(ctx, false)?;
    let folder = disk.mountpoint.join("writer-0");
    std::fs::create_dir(&folder)?;
    disk.client.send("sync")?;
    let (mut lost, mut kept) = (0, 0);
    for round in 0..ROUNDS {
        let marker = folder.join(format!("marker-{round}"));
        std::fs::write(&marker, b"kept")?;
        std::fs::File::open(&marker)?.sync_all()?;
        std::fs::File::open(&folder)?.sync_all()?;
        std::fs::write(folder.join(format!("hope-{round}")), b"perhaps")?;
        disk.client.send("freeze")?;
        ensure!(std::fs::write(folder.join("late"), b"").is_err(), "a frozen disk took a write");
        let told = disk.client.send(&format!("cut {round}"))?;
        ensure!(std::fs::read(&marker)? == b"kept", "round {round}: synced bytes are gone ({told})");
        match std::fs::read(folder.join(format!("hope-{round}"))) {
            Ok(bytes) if bytes == b"perhaps" => kept += 1,
            _ => lost += 1,
        }
    }
    ctx.note(format!("{ROUNDS} cuts: all that was synced is there; of the rest {kept} kept, {lost} lost"));
    ensure!(lost > 0 && kept > 0, "the cuts are all alike");
    run_programs(ctx, &disk)?;
    disk.quit()
}

/// The writers, stopped without a cut: the file system under them answers what they expect.
fn run_programs(ctx: &Context, disk: &PowerDisk) -> Result<()> {
    let root = disk.mountpoint.join("load");
    std::fs::create_dir_all(root.join("writer-0"))?;
    let load = Load::start(&root, vec![Ledger::default()], 1);
    std::thread::sleep(Duration::from_secs(2));
    let (mut ledgers, stats, errors) = load.finish();
    ensure!(errors.is_empty(), "{errors:?}");
    let findings = check(&mut ledgers[0], &root.join("writer-0"), Crash::Process)?;
    crate::ensure_same("without a cut", &findings.broken)?;
    ctx.note(format!(
        "{} operations, {} syncs, {} paths right",
        stats.operations, stats.syncs, findings.paths
    ));
    Ok(())
}
