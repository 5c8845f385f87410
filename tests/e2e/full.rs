//! A disk that is full to the last byte: nothing is lost, deleting helps, and the drive goes on.

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use holdfast_tests::harness::{Context, Drive, InitOptions, Network, run_ok, wait_until};

const DISK_BYTES: u64 = 256 << 20;
/// Fits into what was deleted, and not into what is left beside it.
const NEXT_BYTES: u64 = 64 << 20;
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
    take_the_rest(&disk)?;
    ensure!(std::fs::read(drive.mountpoint.join("kept"))? == b"written while there was room", "it is lost");
    ensure!(drive.status()?["state"] == "mounted", "{}", drive.status_text());

    // Another program has the rest of the disk still. What is deleted makes room for what comes next, at once.
    std::fs::remove_file(&big).with_context(|| format!("deleting\n{}", drive.daemon_log()))?;
    let next = drive.mountpoint.join("next");
    let copied = std::fs::File::create(&next).and_then(|mut file| {
        for n in 0..NEXT_BYTES >> 20 {
            file.write_all(&block(n))?;
        }
        file.sync_all()
    });
    copied.with_context(|| format!("writing after deleting\n{}", drive.daemon_log()))?;
    std::fs::remove_file(&next)?;
    std::fs::remove_file(disk.join("else"))?;
    let took = wait_until("room after the deletion", FREED, || {
        Ok(nix::sys::statvfs::statvfs(&disk)?.blocks_available() * 4096 > DISK_BYTES / 2)
    })
    .with_context(|| format!("{}\n{}", drive.status_text(), drive.daemon_log()))?;
    ctx.note(format!("the room of what was deleted is free after {:.1} s", took.as_secs_f64()));
    std::fs::write(drive.mountpoint.join("after"), b"written after")?;
    drive.sync_wait(SYNC)?;

    // Full when it is unmounted: it mounts all the same. So it does where another program took even what was kept for that.
    let told = fill(&big)?;
    ctx.note(format!("full again: {told}"));
    drive.unmount()?;
    for entry in std::fs::read_dir(drive.home.join("log"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name == "ballast" || name.starts_with("free-") {
            std::fs::remove_file(path)?;
        }
    }
    take_the_rest(&disk)?;
    ctx.note(format!("mounted without a byte in {:.1} s", drive.mount()?.as_secs_f64()));
    ensure!(std::fs::read(drive.mountpoint.join("kept"))? == b"written while there was room", "it is lost");
    ensure!(std::fs::metadata(&big)?.len() > 0 && std::fs::read(&big)?.len() > 1 << 20);
    let status = drive.status()?;
    ctx.note(format!("without a byte: {}, {}", status["state"], status["state_reason"]));
    drive.unmount()?;
    std::fs::remove_file(disk.join("else"))?;
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

/// What other programs leave is taken as well, to the last byte.
fn take_the_rest(disk: &std::path::Path) -> Result<()> {
    for size in ["64k", "1"] {
        let to = std::fs::OpenOptions::new().create(true).append(true).open(disk.join("else"))?;
        let mut dd = Command::new("dd");
        dd.args(["if=/dev/zero", &format!("bs={size}")]).stdout(to).output()?;
    }
    ensure!(nix::sys::statvfs::statvfs(disk)?.blocks_available() == 0, "there is room left");
    Ok(())
}

/// No two are alike, so that none is stored for another.
fn block(n: u64) -> Vec<u8> {
    let mut block = vec![0xa5; 1 << 20];
    block[..8].copy_from_slice(&n.to_le_bytes());
    block
}

/// Writes twice as much as the disk has; the program must be told.
fn fill(path: &std::path::Path) -> Result<std::io::Error> {
    let mut file = std::fs::File::create(path)?;
    for n in 0..2 * DISK_BYTES >> 20 {
        if let Err(error) = file.write_all(&block(n)) {
            return Ok(error);
        }
    }
    match file.sync_all() {
        Err(error) => Ok(error),
        Ok(()) => bail!("twice the disk was written and synced without an error"),
    }
}
