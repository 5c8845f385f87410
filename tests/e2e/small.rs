//! Small data is not forgotten.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use holdfast_tests::harness::{Context, Drive, InitOptions, Network, wait_until};

const PROMISE: Duration = Duration::from_secs(60);

/// One file of 1 KiB, fsync'd and left alone, is Placed within 60 s.
pub fn placed_within_a_minute(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 3)?;
    let drive = Drive::init(
        ctx,
        "drive",
        &InitOptions { providers: network.addresses.clone(), ..Default::default() },
    )?;
    drive.mount()?;
    let path = drive.mountpoint.join("note");
    let mut file = std::fs::File::create(&path)?;
    file.write_all(&[b'x'; 1024])?;
    file.sync_all()?;
    drop(file);
    let start = Instant::now();
    let mut rungs: Vec<String> = Vec::new();
    let placed = wait_until("the file being Placed", PROMISE * 2, || {
        let rung = drive.durability(&path)?;
        if rungs.last() != Some(&rung) {
            ctx.note(format!("{:5.1} s after the fsync: {rung}", start.elapsed().as_secs_f64()));
            rungs.push(rung.clone());
        }
        // M = 2: it survives the loss of two.
        Ok((rung.starts_with("placed") || rung.starts_with("proven")) && rung.contains("survives=2"))
    });
    let placed =
        placed.map_err(|error| error.context(format!("{}\n{}", drive.status_text(), drive.daemon_log())))?;
    ensure!(placed <= PROMISE, "it took {} s", placed.as_secs());
    // What the kernel alone has stands on no rung: the lowest is as high as may be said.
    let mut file = std::fs::OpenOptions::new().append(true).open(&path)?;
    for n in 0..3 {
        file.write_all(&[n])?;
        for path in [&path, &drive.mountpoint] {
            let rung = drive.durability(path)?;
            ensure!(rung == "staged", "{} stands on {rung}, with a byte just written", path.display());
        }
    }
    drop(file);
    drive.unmount()?;
    Ok(())
}
