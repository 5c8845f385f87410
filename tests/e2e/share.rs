//! Private links: somebody without a drive reads what was shared, whichever providers are lost meanwhile, and nothing after the end.

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::compare::Tree;
use holdfast_tests::harness::{
    Context, Drive, Finished, InitOptions, Network, RestoreFrom, run, run_ok, wait_until,
};
use serde_json::{Value, json};

use crate::{inputs, remove_tree};

const SYNC: Duration = Duration::from_secs(120);
const REPAIR: Duration = Duration::from_secs(90);
const FETCH: Duration = Duration::from_secs(120);
const FILES: usize = 300;

pub(crate) fn often() -> Value {
    json!({"limits": {
        "audit_interval_seconds": 3,
        "seal_after_idle_seconds": 1,
        "provider_silent_seconds_max": 6,
        "stripe_after_seconds": 3600,
    }})
}

pub(crate) fn told(drive: &Drive, words: &[&str]) -> Result<Value> {
    let done = drive.command_with(&[words, &["--json"]].concat())?;
    ensure!(done.status.success(), "{words:?}: {}{}\n{}", done.stdout, done.stderr, drive.daemon_log());
    Ok(serde_json::from_str(&done.stdout)?)
}

pub(crate) fn text(report: &Value, key: &str) -> Result<String> {
    Ok(report[key].as_str().with_context(|| format!("no {key} in {report}"))?.to_owned())
}

/// On a machine without a drive and without words.
pub(crate) fn get(ctx: &Context, link: &str, out: &Path) -> Result<Finished> {
    let mut command = Command::new(ctx.bin("holdfast")?);
    command.env("HOLDFAST_HOME", ctx.dir.join("no-home")).args(["get", "--json", link]).arg(out);
    run(&mut command, FETCH)
}

/// As many files as a folder of somebody's has, and the odd things among them.
fn folder(at: &Path) -> Result<()> {
    for n in 0..FILES {
        let below = at.join(format!("{}/{}", n % 7, n % 3));
        std::fs::create_dir_all(&below)?;
        let path = below.join(format!("file {n}"));
        std::fs::write(&path, vec![n as u8; n * 37])?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(if n % 5 == 0 { 0o755 } else { 0o640 }))?;
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000 + n as u64, 123_456_789);
        std::fs::File::open(&path)?.set_modified(time)?;
    }
    inputs::random_files(&at.join("large"), 3, 2_500_000, 7)?;
    std::fs::create_dir(at.join("empty folder"))?;
    std::os::unix::fs::symlink("../nowhere", at.join("link"))?;
    let sparse = std::fs::File::create(at.join("sparse"))?;
    sparse.write_all_at(b"behind a hole", 3 << 20)?;
    sparse.set_len((3 << 20) + 100_000)?;
    Ok(())
}

/// All that a link shows: names, kinds, permissions, times, targets and bytes; without owners, and without who is the same inode.
pub(crate) fn same(expected: &Tree, copy: &Path) -> Result<()> {
    let shown = |tree: &Tree| {
        let mut tree = tree.clone();
        for entry in tree.entries.values_mut() {
            (entry.owner, entry.same_as) = ((0, 0), None);
            entry.xattrs.clear();
        }
        tree
    };
    let differences = shown(expected).differences(&shown(&Tree::read(copy)?));
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

pub(crate) fn got(ctx: &Context, link: &str, name: &str, expected: &Tree) -> Result<Duration> {
    let out = ctx.dir.join(name);
    let done = get(ctx, link, &out)?;
    ensure!(done.status.success(), "get: {}{}", done.stdout, done.stderr);
    same(expected, &out)?;
    remove_tree(&out)?;
    Ok(done.took)
}

/// Every provider that is there has what the link leads to, as it is now.
pub(crate) fn wait_kept(drive: &Drive, id: &str, providers: u64) -> Result<()> {
    wait_until("providers having what the link leads to", SYNC, || {
        let shares = told(drive, &["shares"])?;
        let shares = shares["shares"].as_array().context("no list")?;
        let share = shares.iter().find(|share| share["id"] == id).context("the link is not listed")?;
        Ok(share["with"].as_u64() >= Some(providers))
    })
    .map(drop)
    .with_context(|| drive.daemon_log())
}

/// Providers by the longest slot that they keep: who has what was shared comes first.
fn by_longest_slot(network: &Network, providers: usize) -> Result<Vec<(u64, usize)>> {
    let mut all = Vec::new();
    for number in 1..=providers {
        let mut longest = 0;
        for slot in std::fs::read_dir(network.folder(number).join("slots"))? {
            longest = longest.max(slot?.metadata()?.len());
        }
        all.push((longest, number));
    }
    all.sort_unstable_by(|a, b| b.cmp(a));
    Ok(all)
}

/// A provider's records of links, and their bytes.
fn records(network: &Network, number: usize) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(network.folder(number).join("records"))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("7-")) {
            found.push((path.clone(), std::fs::read(path)?));
        }
    }
    found.sort();
    Ok(found)
}

fn ensure_ended(done: &Finished) -> Result<bool> {
    let over = !done.status.success() && done.stderr.contains("has ended");
    ensure!(!over || done.status.code() == Some(1), "another exit code: {:?}", done.status);
    Ok(over)
}

pub fn leads_to_what_was_shared(ctx: &Context) -> Result<()> {
    const PROVIDERS: usize = 5;
    let network = Network::start(ctx, PROVIDERS)?;
    let options =
        InitOptions { providers: network.addresses.clone(), config: often(), ..InitOptions::default() };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    let shared = drive.mountpoint.join("Shared");
    folder(&shared)?;
    inputs::random_files(&drive.mountpoint.join("private"), 3, 100_000, 9)?;
    let path = shared.display().to_string();
    let report = told(&drive, &["share", &path, "--days", "2"])?;
    let (id, link) = (text(&report, "id")?, text(&report, "link")?);
    ctx.note(format!("shared: {} entries, with {} providers", report["entries"], report["with"]));
    let tree = Tree::read(&shared)?;
    ensure!(!ctx.dir.join("no-home").exists(), "a machine without a drive has a home");

    // It shows what was; what happens to the folder afterwards is nobody's business.
    std::fs::write(shared.join("0/0/file 0"), b"changed")?;
    remove_tree(&shared.join("large"))?;
    std::fs::write(shared.join("later"), b"not shared")?;
    drive.sync_wait(SYNC)?;
    let took = got(ctx, &link, "copy", &tree)?;
    ctx.note(format!("read on an empty machine in {:.1} s", took.as_secs_f64()));

    // What is damaged on its way says so, and what is there stays.
    let (before, secret) = link.split_once('#').context("no key in the link")?;
    let cut = get(ctx, before, &ctx.dir.join("cut"))?;
    ensure!(cut.status.code() == Some(2) && cut.stderr.contains("cut off"), "{}", cut.stderr);
    let turned: String = secret.chars().rev().collect();
    let wrong = get(ctx, &format!("{before}#{turned}"), &ctx.dir.join("wrong"))?;
    ensure!(
        wrong.status.code() == Some(2) && wrong.stderr.contains("changed on its way"),
        "{}",
        wrong.stderr
    );
    std::fs::create_dir(ctx.dir.join("there"))?;
    let there = get(ctx, &link, &ctx.dir.join("there"))?;
    ensure!(there.status.code() == Some(2) && there.stderr.contains("there already"), "{}", there.stderr);

    // Those that kept it are lost, one after another; what took their place is where the link leads.
    let holders = by_longest_slot(&network, PROVIDERS)?;
    let mut left = PROVIDERS as u64;
    for (_, number) in &holders[..2] {
        network.kill(*number)?;
        left -= 1;
        wait_until("its copies being replaced", REPAIR, || {
            let status = drive.status()?;
            let pieces = &status["pieces"];
            let silent = status["providers"].as_array().is_some_and(|all| {
                all.iter().filter(|provider| provider["state"] == "ok").count() as u64 == left
            });
            Ok(silent && pieces["degraded"] == 0 && pieces["lost"] == 0 && pieces["full"] == pieces["total"])
        })
        .with_context(|| format!("{}\n{}", drive.status_text(), drive.daemon_log()))?;
    }
    wait_kept(&drive, &id, left)?;
    // The third of the first holders: none of those that had the data when it was shared is left.
    network.kill(holders[2].1)?;
    let took = got(ctx, &link, "copy", &tree).with_context(|| drive.daemon_log())?;
    ctx.note(format!("read after its first holders were lost, in {:.1} s", took.as_secs_f64()));

    // Taken back.
    let survivor = holders[4].1;
    let before = records(&network, survivor)?;
    ensure!(!before.is_empty(), "the last provider keeps no record of the link");
    told(&drive, &["unshare", &link])?;
    let out = ctx.dir.join("after the end");
    wait_until("the link leading nowhere", REPAIR, || ensure_ended(&get(ctx, &link, &out)?))
        .with_context(|| drive.daemon_log())?;
    ensure!(!out.exists(), "something was written");
    // A reader believes the first provider that says so; the others hear of it, too.
    wait_until("the last provider hearing of it", REPAIR, || Ok(records(&network, survivor)? != before))
        .with_context(|| drive.daemon_log())?;
    let ended = records(&network, survivor)?;
    let list = told(&drive, &["shares"])?;
    ensure!(list["shares"][0]["state"] == "revoked" && list["shares"][0]["link"].is_null(), "{list}");

    // Slots move on; what is left of the link does not.
    std::fs::write(drive.mountpoint.join("later still"), b"x")?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(records(&network, survivor)? == ended, "the record of a link that was taken back changed");
    Ok(())
}

pub fn words_bring_them_back(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 3)?;
    let quick = often();
    let options = InitOptions { survive: 1, providers: network.addresses.clone(), config: quick.clone() };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    let shared = drive.mountpoint.join("Shared");
    inputs::random_files(&shared.join("below"), 12, 200_000, 3)?;
    std::fs::write(drive.mountpoint.join("one"), b"one file")?;
    let folder = told(&drive, &["share", &shared.display().to_string()])?;
    let one = told(&drive, &["share", &drive.mountpoint.join("one").display().to_string(), "--for", "3600"])?;
    let passing =
        told(&drive, &["share", &drive.mountpoint.join("one").display().to_string(), "--for", "3"])?;
    let tree = Tree::read(&shared)?;
    let link = text(&folder, "link")?;
    wait_until("a link being over by itself", REPAIR, || {
        ensure_ended(&get(ctx, &text(&passing, "link")?, &ctx.dir.join("over"))?)
    })?;
    drive.sync_wait(SYNC)?;
    drive.unmount()?;
    remove_tree(&drive.home)?;
    // With the owner's machine gone a link still leads somewhere.
    got(ctx, &link, "without the owner", &tree)?;

    let from = RestoreFrom { secrets: &drive.secrets, peers: &network.addresses[..1], config: quick };
    let (restored, _) = Drive::restore(ctx, "restored", &from)?;
    let list = told(&restored, &["shares"])?;
    let list = list["shares"].as_array().context("no list")?;
    ensure!(list.len() == 3, "{list:?}");
    let known = |link: &str| -> Option<(String, String)> {
        let (name, secret) = (link.split(['?', '#']).next()?, link.split_once('#')?.1);
        Some((name.to_owned(), secret.to_owned()))
    };
    // Two of one second are in no order.
    let of = |share: &Value| {
        let found = list.iter().find(|now| now["id"] == share["id"]);
        found.with_context(|| format!("{share} is not listed"))
    };
    for before in [&folder, &one] {
        let now = of(before)?;
        ensure!(now["path"] == before["path"] && now["state"] == "in_force", "{before} became {now}");
        ensure!(known(&text(before, "link")?) == known(&text(now, "link")?), "{before} became {now}");
    }
    ensure!(of(&passing)?["state"] == "ended", "{}", of(&passing)?);
    // It is looked after from here on: what is deleted stays for the link, and a lost copy is made anew.
    wait_kept(&restored, &text(&folder, "id")?, 3)?;
    remove_tree(&restored.mountpoint.join("Shared"))?;
    restored.sync_wait(SYNC)?;
    run_ok(Command::new("sync").arg(&restored.mountpoint), SYNC)?;
    got(ctx, &link, "from the restored one", &tree)?;
    let out = ctx.dir.join("one file");
    let done = get(ctx, &text(of(&one)?, "link")?, &out)?;
    ensure!(done.status.success() && std::fs::read(&out)? == b"one file", "{}", done.stderr);

    told(&restored, &["unshare", &text(&folder, "id")?])?;
    wait_until("the link leading nowhere", REPAIR, || {
        ensure_ended(&get(ctx, &link, &ctx.dir.join("after the end"))?)
    })
    .with_context(|| restored.daemon_log())?;
    restored.unmount()?;
    Ok(())
}
