//! Two machines with the same words: the one that restored the drive writes on, the other one stops and loses nothing.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::harness::{Context, Drive, InitOptions, Network, RestoreFrom, run_ok, wait_until};
use serde_json::{Value, json};

const SHORT: Duration = Duration::from_secs(30);
const SYNC: Duration = Duration::from_secs(120);
/// Within this time of its next change the older machine knows.
const NOTICED: Duration = Duration::from_secs(60);

pub fn second_writer(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 3)?;
    let quick = json!({"limits": {"seal_after_idle_seconds": 1}});
    let options =
        InitOptions { providers: network.addresses.clone(), config: quick.clone(), ..Default::default() };
    let old = Drive::init(ctx, "old", &options)?;
    old.mount()?;
    std::fs::write(old.mountpoint.join("both"), b"written before")?;
    old.sync_wait(SYNC)?;

    let from = RestoreFrom { secrets: &old.secrets, peers: &network.addresses[..1], config: quick };
    let (new, _) = Drive::restore(ctx, "new", &from)?;
    std::fs::write(new.mountpoint.join("new"), b"of the new machine")?;
    new.sync_wait(SYNC)?;
    ctx.note("the drive is restored elsewhere, and written there");

    std::fs::write(old.mountpoint.join("late"), b"of the old machine")?;
    let took =
        wait_until("the old machine being read-only", NOTICED, || Ok(old.status()?["state"] == "read_only"))
            .with_context(|| format!("{}\n{}", old.status_text(), old.daemon_log()))?;
    ctx.note(format!("the old machine knows after {:.1} s", took.as_secs_f64()));
    let refused = std::fs::write(old.mountpoint.join("later"), b"no").err().and_then(|e| e.raw_os_error());
    ensure!(refused == Some(libc::EROFS), "a write on the old machine gave {refused:?}");
    ensure!(
        std::fs::read(old.mountpoint.join("late"))? == b"of the old machine",
        "its own data is not readable"
    );
    let reason = old.status()?["state_reason"].as_str().unwrap_or_default().to_owned();
    ensure!(reason.contains("another machine"), "it does not say why: {reason}");
    let kept = conflict(ctx, &old)?;
    ensure!(old.status_text().contains(&format!(".snapshots/{kept}")), "{}", old.status_text());
    let out = ctx.folder("out")?;
    let snapshot = old.mountpoint.join(".snapshots").join(&kept);
    run_ok(Command::new("cp").arg("-a").arg(snapshot.join("late")).arg(&out), SHORT)?;
    ensure!(std::fs::read(out.join("late"))? == b"of the old machine", "the copy is another");
    ensure!(std::fs::read(snapshot.join("both"))? == b"written before", "the snapshot is not whole");

    // It knows from the start when it is mounted again.
    old.unmount()?;
    old.mount()?;
    ensure!(old.status()?["state"] == "read_only", "the next mount has forgotten it");
    ensure!(std::fs::read(old.mountpoint.join("late"))? == b"of the old machine", "its own data is gone");
    ensure!(conflict(ctx, &old)? == kept, "the snapshot has another name");
    let snapshot = old.mountpoint.join(".snapshots").join(&kept);
    ensure!(std::fs::read(snapshot.join("late"))? == b"of the old machine", "the snapshot is gone");
    old.unmount()?;

    // The new machine goes on, and what it wrote is what the words bring back.
    std::fs::write(new.mountpoint.join("more"), b"of the new machine")?;
    new.sync_wait(SYNC)?;
    new.unmount()?;
    let again = RestoreFrom { secrets: &old.secrets, peers: &network.addresses[1..2], config: Value::Null };
    let (third, _) = Drive::restore(ctx, "third", &again)?;
    for (name, content) in
        [("both", "written before"), ("new", "of the new machine"), ("more", "of the new machine")]
    {
        let found = std::fs::read_to_string(third.mountpoint.join(name)).with_context(|| name.to_owned())?;
        ensure!(found == content, "{name} is {found:?}");
    }
    third.unmount()?;
    Ok(())
}

/// The snapshot that keeps what only this machine has.
fn conflict(ctx: &Context, drive: &Drive) -> Result<String> {
    let mut name = None;
    wait_until("a snapshot of what is only here", NOTICED, || {
        name = drive.status()?["conflict_snapshot"].as_str().map(str::to_owned);
        Ok(name.is_some())
    })
    .with_context(|| format!("{}\n{}", drive.status_text(), drive.daemon_log()))?;
    let name = name.context("no name")?;
    ensure!(name.starts_with("conflict-"), "{name}");
    ctx.note(format!("what is only there is in {name}"));
    Ok(name)
}

fn term(drive: &Drive) -> Result<u64> {
    let status = drive.status()?;
    status["term"]["number"].as_u64().with_context(|| format!("it holds no term: {}", status["state_reason"]))
}

/// Two restores of one drive at the same moment: each may write only in a term of its own, the lower one is told, and nothing that
/// was written on either is lost.
pub fn two_at_once(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 4)?;
    let quick = json!({"limits": {"seal_after_idle_seconds": 1}});
    let options = InitOptions { survive: 1, providers: network.addresses.clone(), config: quick.clone() };
    let first = Drive::init(ctx, "first", &options)?;
    first.mount()?;
    std::fs::write(first.mountpoint.join("both"), b"written before")?;
    first.sync_wait(SYNC)?;
    ensure!(term(&first)? == 1, "a new drive begins with term {}", term(&first)?);
    ensure!(first.status()?["term"]["keeping"] == 4, "{}", first.status()?["term"]);
    first.unmount()?;

    let restore = |name: &'static str, peer: usize| {
        let (ctx, secrets, peers) =
            (ctx.clone(), first.secrets.clone(), vec![network.addresses[peer].clone()]);
        let config = quick.clone();
        std::thread::spawn(move || {
            Drive::restore(&ctx, name, &RestoreFrom { secrets: &secrets, peers: &peers, config })
        })
    };
    let both = [restore("left", 0), restore("right", 3)].map(std::thread::JoinHandle::join);
    let [left, right] = both.map(|joined| joined.map_err(|_| anyhow::anyhow!("a restore panicked")));
    let (left, right) = (left??.0, right??.0);
    let terms = (term(&left)?, term(&right)?);
    ctx.note(format!("restored at once, in terms {} and {}", terms.0, terms.1));
    ensure!(terms.0 != terms.1 && terms.0.min(terms.1) > 1, "terms {terms:?}");
    let (lower, higher) = if terms.0 < terms.1 { (left, right) } else { (right, left) };

    // The one that was outvoted finds out with its next head, which may be its first.
    let written = std::fs::write(lower.mountpoint.join("lower"), b"of the lower term");
    wait_until("the lower one being read-only", NOTICED, || Ok(lower.status()?["state"] == "read_only"))
        .with_context(|| format!("{}\n{}", lower.status_text(), lower.daemon_log()))?;
    match written.map_err(|e| e.raw_os_error()) {
        Ok(()) => {
            let snapshot = lower.mountpoint.join(".snapshots").join(conflict(ctx, &lower)?);
            ensure!(std::fs::read(snapshot.join("lower"))? == b"of the lower term", "a write is lost");
        }
        Err(error) => ensure!(error == Some(libc::EROFS), "a write before it knew gave {error:?}"),
    }
    lower.unmount()?;

    std::fs::write(higher.mountpoint.join("higher"), b"of the higher term")?;
    higher.sync_wait(SYNC)?;
    ensure!(higher.status()?["state"] == "mounted", "{}", higher.status_text());

    // The first machine comes back, with nothing that the others do not know: it hears of it without writing anything.
    first.mount()?;
    wait_until("the first one being read-only", NOTICED, || Ok(first.status()?["state"] == "read_only"))
        .with_context(|| format!("{}\n{}", first.status_text(), first.daemon_log()))?;
    ensure!(first.status()?["conflict_snapshot"].is_null(), "{}", first.status_text());
    first.unmount()?;
    higher.unmount()?;
    Ok(())
}

/// One of three providers is put back from a copy of its disk, and so grants a term twice, to two machines that do not reach each
/// other's honest provider. Both find out where they meet, both keep what they wrote, and the words go on in a higher term.
pub fn forgetful_anchor(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 3)?;
    let quick = json!({"limits": {"seal_after_idle_seconds": 1}});
    let options = InitOptions { survive: 1, providers: network.addresses.clone(), config: quick.clone() };
    let first = Drive::init(ctx, "first", &options)?;
    first.mount()?;
    std::fs::write(first.mountpoint.join("both"), b"written before")?;
    first.sync_wait(SYNC)?;
    first.unmount()?;
    let copy = ctx.dir.join("copy");
    network.stop(3)?;
    run_ok(Command::new("cp").arg("-a").arg(network.folder(3)).arg(&copy), SHORT)?;
    network.start_one(3)?;

    let restore = |name: &str, peer: usize| -> Result<Drive> {
        let peers = [network.addresses[peer - 1].clone()];
        let from = RestoreFrom { secrets: &first.secrets, peers: &peers, config: quick.clone() };
        let (drive, took) = Drive::restore(ctx, name, &from)?;
        ctx.note(format!("{name}: restored in {:.1} s", took.as_secs_f64()));
        Ok(drive)
    };
    network.stop(2)?;
    let left = restore("left", 1)?;
    let held = term(&left)?;
    std::fs::write(left.mountpoint.join("left"), b"of the left one")?;
    left.sync_wait(SYNC)?;
    left.unmount()?;
    for number in [1, 3] {
        network.stop(number)?;
    }
    std::fs::remove_dir_all(network.folder(3))?;
    std::fs::rename(&copy, network.folder(3))?;
    for number in [2, 3] {
        network.start_one(number)?;
    }
    let right = restore("right", 2)?;
    ensure!(term(&right)? == held, "the lie did not work: terms {held} and {}", term(&right)?);
    std::fs::write(right.mountpoint.join("right"), b"of the right one")?;
    right.sync_wait(SYNC)?;
    ctx.note(format!("two machines hold term {held}"));

    // They meet.
    network.start_one(1)?;
    let liar = network.peer(3)?;
    wait_until("the right one being read-only", NOTICED, || Ok(right.status()?["state"] == "read_only"))
        .with_context(|| format!("{}\n{}", right.status_text(), right.daemon_log()))?;
    let events = right.status()?["events"].to_string();
    ensure!(events.contains("granted one term to two machines"), "the lie is not told: {events}");
    ensure!(events.contains(&liar[liar.len() - 8..]), "it is not told who lied: {events}");
    let snapshot = right.mountpoint.join(".snapshots").join(conflict(ctx, &right)?);
    ensure!(std::fs::read(snapshot.join("right"))? == b"of the right one", "it lost what it wrote");
    right.unmount()?;
    left.mount()?;
    wait_until("the left one being read-only", NOTICED, || Ok(left.status()?["state"] == "read_only"))
        .with_context(|| format!("{}\n{}", left.status_text(), left.daemon_log()))?;
    let snapshot = left.mountpoint.join(".snapshots").join(conflict(ctx, &left)?);
    ensure!(std::fs::read(snapshot.join("left"))? == b"of the left one", "it lost what it wrote");
    left.unmount()?;
    let next = restore("next", 1)?;
    ensure!(term(&next)? > held, "term {} after {held}", term(&next)?);
    std::fs::write(next.mountpoint.join("next"), b"goes on")?;
    next.sync_wait(SYNC)?;
    next.unmount()?;
    Ok(())
}

/// With one of three providers left a drive comes back to be read; to be written when a second one is there, or by its owner's word.
pub fn too_few(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 3)?;
    let first = Drive::init(
        ctx,
        "first",
        &InitOptions { providers: network.addresses.clone(), ..InitOptions::default() },
    )?;
    first.mount()?;
    std::fs::write(first.mountpoint.join("file"), b"written before")?;
    first.sync_wait(SYNC)?;
    first.unmount()?;
    for number in [2, 3] {
        network.stop(number)?;
    }
    let peers = [network.addresses[0].clone()];
    let from = |config| RestoreFrom { secrets: &first.secrets, peers: &peers, config };
    let (waiting, took) = Drive::restore(ctx, "waiting", &from(json!({})))?;
    ctx.note(format!("restored with one of three after {:.1} s", took.as_secs_f64()));
    ensure!(std::fs::read(waiting.mountpoint.join("file"))? == b"written before");
    let status = waiting.status()?;
    let reason = status["state_reason"].as_str().unwrap_or_default();
    ensure!(status["state"] == "read_only" && status["term"].is_null(), "{}", waiting.status_text());
    ensure!(reason.contains("have agreed"), "{reason}");
    let refused =
        std::fs::write(waiting.mountpoint.join("early"), b"no").err().and_then(|e| e.raw_os_error());
    ensure!(refused == Some(libc::EROFS), "a write without a term gave {refused:?}");
    network.start_one(2)?;
    let took =
        wait_until("the drive being writable", NOTICED, || Ok(waiting.status()?["state"] == "mounted"))
            .with_context(|| format!("{}\n{}", waiting.status_text(), waiting.daemon_log()))?;
    ctx.note(format!("writable {:.1} s after the second one was there", took.as_secs_f64()));
    std::fs::write(waiting.mountpoint.join("late"), b"yes")?;
    let held = term(&waiting)?;
    waiting.unmount()?;

    network.stop(2)?;
    let (forced, took) = Drive::restore(ctx, "forced", &from(json!({"restore_minority": true})))?;
    ctx.note(format!("restored by its owner's word after {:.1} s", took.as_secs_f64()));
    let status = forced.status()?;
    ensure!(status["term"]["forced"] == true && term(&forced)? > held + 1000, "{}", status["term"]);
    std::fs::write(forced.mountpoint.join("alone"), b"yes")?;
    forced.unmount()?;
    Ok(())
}
