//! The power-cut disk as a process.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::{Context, Process, wait_until};
use crate::powercut::Client;

/// A mounted disk that loses power on command.
#[derive(Debug)]
pub struct PowerDisk {
    pub mountpoint: PathBuf,
    pub client: Client,
    process: Process,
}

impl PowerDisk {
    pub fn start(ctx: &Context, ignore_fsync: bool) -> Result<PowerDisk> {
        let mountpoint = ctx.folder("powercut")?;
        let client = Client { socket: ctx.dir.join("powercut.sock") };
        ctx.registry.mount(&mountpoint)?;
        let mut command = Command::new(ctx.bin("powercut-fs")?);
        command.arg("--mount").arg(&mountpoint).arg("--control").arg(&client.socket);
        if ignore_fsync {
            command.arg("--ignore-fsync");
        }
        let mut process = Process::start(&mut command, &ctx.dir.join("powercut.log"), &ctx.registry)?;
        wait_until("the power-cut disk", Duration::from_secs(20), || {
            anyhow::ensure!(process.running(), "it ended: {}", process.output());
            Ok(client.send("stats").is_ok())
        })?;
        Ok(PowerDisk { mountpoint, client, process })
    }

    pub fn quit(mut self) -> Result<()> {
        self.client.send("quit")?;
        wait_until("the power-cut disk's end", Duration::from_secs(20), || Ok(!self.process.running()))?;
        Ok(())
    }
}
