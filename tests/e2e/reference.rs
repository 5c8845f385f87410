//! Histories of calls through a mount agree with the model; what they left is the same after a remount and after a kill.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow};
use holdfast_tests::harness::{Context, Drive, InitOptions, Network};
use holdfast_tests::reference::model::Model;
use holdfast_tests::reference::real::Real;
use holdfast_tests::reference::{history, run};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::json;

const CALLS: usize = 100;
const HISTORIES: u32 = 120;
const HISTORIES_FULL: u32 = 3000;
/// Folders that are looked at again after a remount.
const KEPT: usize = 40;
const SYNC: Duration = Duration::from_secs(300);

pub fn through_a_mount(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 2)?;
    let options = InitOptions {
        survive: 1,
        providers: network.addresses.clone(),
        // Sealing goes on all the while, so that calls meet chunks as well as the log.
        config: json!({"limits": {"seal_after_idle_seconds": 1, "seal_after_seconds_max": 2}}),
    };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    let cases = if ctx.full { HISTORIES_FULL } else { HISTORIES };
    let config = Config { cases, max_shrink_iters: 2000, failure_persistence: None, ..Config::default() };
    let kept: RefCell<Vec<(PathBuf, Model)>> = RefCell::default();
    let nth = RefCell::new(0);
    let done = TestRunner::new(config).run(&history(CALLS), |calls| {
        *nth.borrow_mut() += 1;
        let dir = drive.mountpoint.join(format!("history-{}", nth.borrow()));
        let failed = |error: std::io::Error| TestCaseError::fail(error.to_string());
        std::fs::create_dir(&dir).map_err(failed)?;
        let (mut model, mut real) = (Model::default(), Real::new(dir.clone()));
        run(&calls, &mut model, &mut real).map_err(TestCaseError::fail)?;
        model.close_all();
        real.close_all();
        if kept.borrow().len() < KEPT {
            kept.borrow_mut().push((dir, model));
        } else {
            std::fs::remove_dir_all(&dir).map_err(failed)?;
        }
        Ok(())
    });
    // The error says the shortest history that still fails.
    done.map_err(|error| anyhow!("{error}\n{}", drive.daemon_log()))?;
    ctx.note(format!("{} histories of up to {CALLS} calls", nth.borrow()));
    let compare = |when: &str| -> Result<()> {
        for (dir, model) in kept.borrow().iter() {
            Real::new(dir.clone()).compare(model).map_err(|why| anyhow!("{when}: {why}"))?;
        }
        Ok(())
    };
    compare("as it was left")?;
    std::fs::File::open(&drive.mountpoint)?.sync_all()?;
    nix::unistd::syncfs(&std::fs::File::open(&drive.mountpoint)?)?;
    drive.command_with(&["sync"])?;
    drive.kill()?;
    drive.mount()?;
    compare("after a kill")?;
    drive.sync_wait(SYNC)?;
    drive.command_with(&["evict"])?;
    drive.unmount()?;
    drive.mount()?;
    compare("after a remount, from the providers")?;
    drive.verify(true)?;
    drive.unmount()?;
    Ok(())
}
