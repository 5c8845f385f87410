//! Links over time: a fetch that was killed goes on, and a private link leads to what was shared when its copies have become stripes,
//! when its blocks have moved to another piece, and when a slot of it is gone.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use holdfast_tests::compare::Tree;
use holdfast_tests::harness::{Context, Drive, InitOptions, Network, Process, kill_pid, wait_until};
use serde_json::{Value, json};

use crate::retention::{alternate, kept_by_providers, prune_all};
use crate::share::{get, got, same, told, wait_kept};
use crate::{inputs, remove_tree};

const MIB: u64 = 1 << 20;
const SYNC: Duration = Duration::from_secs(240);
const STRIPED: Duration = Duration::from_secs(180);
const KILLED: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(3);

/// Files, more than two syncs of a fetch come to.
const FILES: usize = 40;
const FILE_BYTES: usize = 4_000_000;

fn text(report: &Value, key: &str) -> Result<String> {
    Ok(report[key].as_str().with_context(|| format!("no {key} in {report}"))?.to_owned())
}

/// What a fetch under way has in a folder: how many parts are whole, and where they are.
fn under_way(dir: &Path) -> Result<Option<(u64, PathBuf)>> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "begun") {
            let note = std::fs::read_to_string(&path)?;
            let whole = note.split(' ').nth(4).and_then(|word| word.parse().ok()).unwrap_or(0);
            return Ok(Some((whole, path.with_extension("part"))));
        }
    }
    Ok(None)
}

/// Every file below a folder, and which inode it is.
fn inodes(dir: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let (mut found, mut todo) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(path) = todo.pop() {
        let about = path.symlink_metadata()?;
        match about.is_dir() {
            true => todo.extend(
                std::fs::read_dir(&path)?.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?,
            ),
            false => found.push((path.strip_prefix(dir)?.to_owned(), about.ino())),
        }
    }
    Ok(found)
}

/// `kill -9` in the middle of a fetch, then the same command again: what was whole is the same files, and all of it is right.
fn killed_and_gone_on(ctx: &Context, link: &str, name: &str, expected: &Tree, public: bool) -> Result<()> {
    let folder = ctx.folder(&format!("for-{name}"))?;
    let out = folder.join(name);
    let mut command = Command::new(ctx.bin("holdfast")?);
    command.env("HOLDFAST_HOME", ctx.dir.join("no-home")).args(["get", "--json", link]).arg(&out);
    let mut process = Process::start(&mut command, &ctx.dir.join(format!("{name}.log")), &ctx.registry)?;
    let start = Instant::now();
    let (whole, part) = loop {
        ensure!(process.running(), "it ended before it was killed: {}", process.output());
        if let Some((whole, part)) = under_way(&folder)?.filter(|(whole, _)| *whole > 0) {
            break (whole, part);
        }
        ensure!(start.elapsed() < KILLED, "nothing became whole: {}", process.output());
        std::thread::sleep(POLL);
    };
    kill_pid(process.pid())?;
    ensure!(!out.exists(), "half of it has its name");
    let before = inodes(&part)?;
    ctx.note(format!("{name}: killed with {whole} parts whole, {} files begun", before.len()));
    let done = get(ctx, link, &out)?;
    ensure!(done.status.success(), "get: {}{}", done.stdout, done.stderr);
    if public {
        // IPFS knows neither permissions nor times.
        let bytes = |tree: &Tree| tree.bytes;
        ensure!(bytes(expected) == bytes(&Tree::read(&out)?), "other bytes than were published");
        let sums = |tree: &Tree| tree.entries.values().map(|e| e.content.clone()).collect::<Vec<_>>();
        ensure!(sums(expected) == sums(&Tree::read(&out)?), "other files than were published");
    } else {
        same(expected, &out)?;
    }
    let after = inodes(&out)?;
    let kept = before.iter().filter(|file| after.contains(file)).count();
    ctx.note(format!("{name}: gone on with {kept} of its files in {:.1} s", done.took.as_secs_f64()));
    ensure!(kept > 0, "it was begun again");
    ensure!(std::fs::read_dir(&folder)?.count() == 1, "something was left behind");
    remove_tree(&folder)
}

pub fn fetch_goes_on(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 2)?;
    let config = json!({"limits": {"seal_after_idle_seconds": 1, "stripe_after_seconds": 36_000}});
    let options = InitOptions { survive: 1, providers: network.addresses.clone(), config };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    let shared = drive.mountpoint.join("Shared");
    inputs::random_files(&shared, FILES, FILE_BYTES, 5)?;
    let path = shared.display().to_string();
    let link = text(&told(&drive, &["share", &path])?, "link")?;
    let tree = Tree::read(&shared)?;
    killed_and_gone_on(ctx, &link, "private", &tree, false)?;
    let report = told(&drive, &["publish", "--wait", "--timeout", "120", &path])?;
    killed_and_gone_on(ctx, &text(&report, "link")?, "public", &tree, true)?;
    drive.unmount()?;
    Ok(())
}

/// A link that was made of copies leads to stripes when the copies are given up, and past whichever slot of them is lost.
pub fn outlives_its_copies(ctx: &Context) -> Result<()> {
    const PROVIDERS: usize = 5;
    let network = Network::start(ctx, PROVIDERS)?;
    let config = json!({
        "policy": {"stripe_data_max": 3},
        "limits": {
            "audit_interval_seconds": 3,
            "seal_after_idle_seconds": 1,
            "stripe_after_seconds": 20,
            "surplus_grace_seconds": 3
        }
    });
    let options = InitOptions { providers: network.addresses.clone(), config, ..InitOptions::default() };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    let shared = drive.mountpoint.join("Shared");
    for part in 0..3 {
        inputs::random_files(&shared.join(part.to_string()), 4, MIB as usize, part)?;
        drive.sync_wait(SYNC)?;
    }
    let report = told(&drive, &["share", &shared.display().to_string()])?;
    let (id, link) = (text(&report, "id")?, text(&report, "link")?);
    let tree = Tree::read(&shared)?;
    let redundancy = || Ok::<_, anyhow::Error>(drive.status()?["redundancy"].clone());
    ensure!(redundancy()?["striped_bytes"] == 0, "pieces were stripes already: {}", redundancy()?);
    got(ctx, &link, "of copies", &tree)?;
    wait_until("the copies being given up", STRIPED, || {
        let r = redundancy()?;
        Ok(r["stripes_full"] == 1 && r["striped_bytes"].as_u64() >= Some(12 * MIB))
    })
    .with_context(|| format!("{}\n{}", drive.status_text(), drive.daemon_log()))?;
    let kept = || {
        let slots = (1..=PROVIDERS).map(|n| crate::quota::folder_bytes(&network.folder(n).join("slots")));
        slots.sum::<u64>()
    };
    // Five slots for three pieces; as copies it would be nine.
    wait_until("providers dropping the copies", STRIPED, || Ok(kept() < 7 * 4 * MIB))
        .with_context(|| drive.daemon_log())?;
    wait_kept(&drive, &id, PROVIDERS as u64)?;
    got(ctx, &link, "of stripes", &tree).with_context(|| drive.daemon_log())?;
    // Nobody mends anything from here on. Of three slots at least one is data: of that all bytes are decoded.
    drive.unmount()?;
    for number in 1..=3 {
        network.kill(number)?;
        let took = got(ctx, &link, "past a lost slot", &tree).with_context(|| format!("without {number}"))?;
        ctx.note(format!("without provider {number}: {:.1} s", took.as_secs_f64()));
        network.start_one(number)?;
    }
    // Two gone are as many as it survives.
    network.kill(2)?;
    network.kill(3)?;
    got(ctx, &link, "past two", &tree).context("without 2 and 3")?;
    Ok(())
}

/// What a link shows lay between what was deleted: it is packed anew, the old pieces go, and the link leads to the new ones.
pub fn follows_its_blocks(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 2)?;
    let config = json!({
        "policy": {"retention": {"grace_hours": 0}},
        "limits": {"seal_after_idle_seconds": 1, "stripe_after_seconds": 36_000}
    });
    let options = InitOptions { survive: 1, providers: network.addresses.clone(), config };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    let at = &drive.mountpoint;
    alternate(at, 300)?;
    let shared = at.join("stays");
    let report = told(&drive, &["share", &shared.display().to_string()])?;
    let (id, link) = (text(&report, "id")?, text(&report, "link")?);
    let tree = Tree::read(&shared)?;
    std::fs::remove_dir_all(at.join("goes"))?;
    // The link alone holds what it shows from here on.
    std::fs::remove_dir_all(at.join("stays/3"))?;
    drive.sync_wait(SYNC)?;
    let before = kept_by_providers(&network);
    let (freed, moved) = prune_all(&drive)?;
    let after = kept_by_providers(&network);
    ctx.note(format!(
        "{} MiB not needed, {} MiB packed anew; providers {} -> {} MiB",
        freed / MIB,
        moved / MIB,
        before / MIB,
        after / MIB
    ));
    ensure!(moved > 2 * MIB, "nothing was packed anew");
    if after + 12 * MIB > before {
        bail!("the providers hold {after} of {before} bytes still\n{}", drive.status_text());
    }
    wait_kept(&drive, &id, 2)?;
    drive.unmount()?;
    got(ctx, &link, "of moved blocks", &tree).context("after compaction")?;
    network.kill(1)?;
    got(ctx, &link, "of one of two", &tree).context("without provider 1")?;
    Ok(())
}
