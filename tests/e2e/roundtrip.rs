//! Real programs, a lost machine, 24 words.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::compare::{Tree, hash_file};
use holdfast_tests::harness::{Context, Drive, InitOptions, Network, RestoreFrom, run_ok, wire};
use serde_json::Value;

use crate::{ensure_same, inputs, remove_tree};

const LONG: Duration = Duration::from_secs(600);
const SYNC: Duration = Duration::from_secs(600);

/// A tree by `cp -a`, a `git clone`, a restic backup: equal after a remount, and again on an empty machine.
pub fn real_tree(ctx: &Context) -> Result<()> {
    let source = inputs::staged_tree(ctx)?;
    let repository = ctx.dir.join("repository");
    inputs::repository(&repository, &source)?;
    let original = Tree::read(&source)?;
    ctx.note(format!("the tree has {} entries, {} MB", original.entries.len(), original.bytes >> 20));

    let network = Network::start(ctx, 5)?;
    let drive = Drive::init(
        ctx,
        "drive",
        &InitOptions { providers: network.addresses.clone(), ..Default::default() },
    )?;
    ctx.note(format!("mounted in {:.1} s", drive.mount()?.as_secs_f64()));
    let at = drive.mountpoint.clone();
    fill(ctx, &at, &source, &repository)?;
    ensure_same("after cp -a", &original.differences(&Tree::read(&at.join("tree"))?))?;

    drive.unmount()?;
    ctx.note(format!("mounted again in {:.1} s", drive.mount()?.as_secs_f64()));
    ensure_same("after a remount", &original.differences(&Tree::read(&at.join("tree"))?))?;
    use_it(ctx, &at)?;

    ctx.note(format!("sync --wait took {:.1} s", drive.sync_wait(SYNC)?.as_secs_f64()));
    let before = Tree::read(&at)?;
    drive.unmount()?;
    remove_tree(&drive.home)?;
    ctx.note("the first machine's folder is deleted");

    let start = (Instant::now(), wire::loopback_bytes()?);
    let from = RestoreFrom { secrets: &drive.secrets, peers: &network.addresses[..1], config: Value::Null };
    let (restored, took) = Drive::restore(ctx, "restored", &from)?;
    let moved = wire::loopback_bytes()? - start.1;
    ctx.note(format!("restored and mounted in {:.1} s, {} KiB moved", took.as_secs_f64(), moved >> 10));
    ensure!(moved < before.bytes / 4, "{moved} bytes were moved before the mount: it waits for the data");
    let after = Tree::read(&restored.mountpoint)?;
    ctx.note(format!("all of it read after {:.1} s", start.0.elapsed().as_secs_f64()));
    ensure_same("after the restore", &before.differences(&after))?;
    use_it(ctx, &restored.mountpoint)?;
    restored.verify(false)?;
    restored.unmount()?;
    Ok(())
}

fn fill(ctx: &Context, at: &Path, source: &Path, repository: &Path) -> Result<()> {
    let step = Instant::now();
    run_ok(Command::new("cp").arg("-a").arg(source).arg(at.join("tree")), LONG)?;
    ctx.note(format!("cp -a took {:.1} s", step.elapsed().as_secs_f64()));
    let step = Instant::now();
    run_ok(inputs::git(at).args(["clone", "-q"]).arg(repository).arg("clone"), LONG)?;
    ctx.note(format!("git clone took {:.1} s", step.elapsed().as_secs_f64()));
    let step = Instant::now();
    let backup = at.join("backup");
    run_ok(inputs::restic(&backup).arg("init"), LONG)?;
    run_ok(inputs::restic(&backup).arg("backup").arg(repository), LONG)?;
    ctx.note(format!("restic backup took {:.1} s", step.elapsed().as_secs_f64()));
    use_it(ctx, at)
}

/// What the programs say about their own data.
fn use_it(ctx: &Context, at: &Path) -> Result<()> {
    let clone = at.join("clone");
    run_ok(inputs::git(&clone).args(["fsck", "--full", "--strict"]), LONG).context("git fsck")?;
    let changed = run_ok(inputs::git(&clone).args(["status", "--porcelain"]), LONG)?.stdout;
    ensure!(changed.is_empty(), "git status is not clean:\n{changed}");
    run_ok(inputs::restic(&at.join("backup")).args(["check", "--read-data"]), LONG)
        .context("restic check")?;
    ctx.note("git fsck, git status and restic check --read-data are content");
    Ok(())
}

/// A drive of 2 GiB, restored: mounting it and reading one cold file of 1 MiB moves less than 32 MiB.
pub fn cold_read(ctx: &Context) -> Result<()> {
    const FILES: usize = 2048;
    const FILE_BYTES: usize = 1 << 20;
    const MOVED_BYTES_MAX: u64 = 32 << 20;

    let network = Network::start(ctx, 1)?;
    let options = InitOptions { survive: 0, providers: network.addresses.clone(), ..Default::default() };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    let step = Instant::now();
    inputs::random_files(&drive.mountpoint.join("data"), FILES, FILE_BYTES, 3)?;
    ctx.note(format!("{} MiB written in {:.1} s", FILES * FILE_BYTES >> 20, step.elapsed().as_secs_f64()));
    let chosen = Path::new("data/015/file-00977");
    let expected = hash_file(&drive.mountpoint.join(chosen))?;
    ctx.note(format!("sync --wait took {:.1} s", drive.sync_wait(SYNC)?.as_secs_f64()));
    drive.unmount()?;
    remove_tree(&drive.home)?;

    let (time, bytes) = (Instant::now(), wire::loopback_bytes()?);
    let from = RestoreFrom { secrets: &drive.secrets, peers: &network.addresses, config: Value::Null };
    let (restored, took) = Drive::restore(ctx, "restored", &from)?;
    let mounted = wire::loopback_bytes()? - bytes;
    let found = hash_file(&restored.mountpoint.join(chosen))?;
    let moved = wire::loopback_bytes()? - bytes;
    ctx.note(format!(
        "mounted in {:.1} s with {} KiB moved, the file read after {:.1} s with {} KiB in all",
        took.as_secs_f64(),
        mounted >> 10,
        time.elapsed().as_secs_f64(),
        moved >> 10
    ));
    ensure!(found == expected, "the file has another content");
    ensure!(moved < MOVED_BYTES_MAX, "{moved} bytes were moved");
    let listed = std::fs::read_dir(restored.mountpoint.join("data/015"))?.count();
    ensure!(listed == 64, "{listed} names in a folder of 64");
    restored.unmount()?;
    Ok(())
}
