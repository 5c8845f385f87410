//! A disk that is full to the last byte: nothing is lost, deleting helps, and the drive goes on.

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use holdfast_tests::harness::{Context, Drive, InitOptions, Network, run_ok, wait_until};

const DISK_BYTES: u64 = 256 << 20;
const SYNC: Duration = Duration::from_secs(120);
const FREED: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_secs(30);

pub fn full_disk(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 3)?;
    let disk = ctx.folder("disk")?;
    ctx.registry.mount(&disk)?;
    let size = format!("size={DISK_BYTES},mode=700");
    run_ok(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&disk), STEP)?;
    let options = InitOptions { providers: network.addresses.clone(), ..Default::default() };
    let drive = Drive::init_at(ctx, "drive", disk.join("home"), &options)?;
    drive.mount()?;
    std::fs::write(drive.mountpoint.join("kept"), b"written while there was room")?;
    drive.sync_wait(SYNC)?;

    let big = drive.mountpoint.join("big");
    let told = fill(&big)?;
    ctx.note(format!("writing more than the disk has: {told}"));
    // What other programs leave is taken as well.
    let _ = Command::new("dd")
        .args(["if=/dev/zero", "bs=64k"])
        .arg(format!("of={}", disk.join("else").display()))
        .output();
    ensure!(std::fs::read(drive.mountpoint.join("kept"))? == b"written while there was room", "it is lost");
    ensure!(drive.status()?["state"] == "mounted", "{}", drive.status_text());

    std::fs::remove_file(disk.join("else"))?;
    std::fs::remove_file(&big).with_context(|| format!("deleting\n{}", drive.daemon_log()))?;
    let took = wait_until("room after the deletion", FREED, || {
        Ok(nix::sys::statvfs::statvfs(&disk)?.blocks_available() * 4096 > DISK_BYTES / 2)
    })
    .with_context(|| format!("{}\n{}", drive.status_text(), drive.daemon_log()))?;
    ctx.note(format!("the room of what was deleted is free after {:.1} s", took.as_secs_f64()));
    std::fs::write(drive.mountpoint.join("after"), b"written after")?;
    drive.sync_wait(SYNC)?;

    // Full when it is unmounted: it mounts all the same.
    let told = fill(&big)?;
    ctx.note(format!("full again: {told}"));
    drive.unmount()?;
    ctx.note(format!("mounted on a full disk in {:.1} s", drive.mount()?.as_secs_f64()));
    for (name, content) in [("kept", "written while there was room"), ("after", "written after")] {
        ensure!(std::fs::read_to_string(drive.mountpoint.join(name))? == content, "{name} is another");
    }
    std::fs::remove_file(&big)?;
    wait_until("room after the deletion", FREED, || {
        Ok(nix::sys::statvfs::statvfs(&disk)?.blocks_available() * 4096 > DISK_BYTES / 2)
    })
    .with_context(|| format!("{}\n{}", drive.status_text(), drive.daemon_log()))?;
    drive.verify(true)?;
    drive.unmount()?;
    Ok(())
}

/// Writes twice as much as the disk has; the program must be told.
fn fill(path: &std::path::Path) -> Result<std::io::Error> {
    let mut file = std::fs::File::create(path)?;
    let block = vec![0xa5; 1 << 20];
    for n in 0..2 * DISK_BYTES >> 20 {
        // No two blocks are alike, so that none is stored for another.
        let mut block = block.clone();
        block[..8].copy_from_slice(&n.to_le_bytes());
        if let Err(error) = file.write_all(&block) {
            return Ok(error);
        }
    }
    match file.sync_all() {
        Err(error) => Ok(error),
        Ok(()) => bail!("twice the disk was written and synced without an error"),
    }
}
