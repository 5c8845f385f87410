//! Two machines with the same words: the one that restored the drive writes on, the other one stops and loses nothing.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::harness::{Context, Drive, InitOptions, Network, RestoreFrom, wait_until};
use serde_json::{Value, json};

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

    // It knows from the start when it is mounted again.
    old.unmount()?;
    old.mount()?;
    ensure!(old.status()?["state"] == "read_only", "the next mount has forgotten it");
    ensure!(std::fs::read(old.mountpoint.join("late"))? == b"of the old machine", "its own data is gone");
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
