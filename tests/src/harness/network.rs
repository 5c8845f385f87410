//! Providers on this machine, by `holdfast local-network` as a person would start them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::process::{kill_pid, run_ok};
use super::{Context, Process};

const LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Network {
    ctx: Context,
    pub dir: PathBuf,
    pub addresses: Vec<String>,
}

impl Network {
    pub fn start(ctx: &Context, providers: usize) -> Result<Network> {
        let mut network = Network { ctx: ctx.clone(), dir: ctx.dir.join("network"), addresses: Vec::new() };
        for number in 1..=providers {
            ctx.registry.pidfile(&network.folder(number).join("provider.pid"))?;
        }
        let count = providers.to_string();
        network.command(&["start", "--providers", &count, "--capacity", "40G"])?;
        let told = network.command(&["status", "--addresses"])?;
        for line in told.lines().filter(|line| line.starts_with('/')) {
            // Of each the first one, which is the one over TCP.
            let peer = line.rsplit_once("/p2p/").context("an address without identity")?.1;
            if !network.addresses.iter().any(|known: &String| known.ends_with(peer)) {
                network.addresses.push(line.to_owned());
            }
        }
        anyhow::ensure!(
            network.addresses.len() == providers,
            "{providers} providers were started, told: {told}"
        );
        Ok(network)
    }

    fn command(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(self.ctx.bin("holdfast")?);
        command.arg("local-network").args(words).arg("--dir").arg(&self.dir);
        Ok(run_ok(&mut command, LIMIT)?.stdout)
    }

    /// The folder of a provider, numbered from 1.
    pub fn folder(&self, number: usize) -> PathBuf {
        self.dir.join(format!("provider-{number}"))
    }

    pub fn pid(&self, number: usize) -> Result<u32> {
        let path = self.folder(number).join("provider.pid");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.split_whitespace().next().context("provider.pid is empty")?.parse()?)
    }

    /// kill -9 of one.
    pub fn kill(&self, number: usize) -> Result<()> {
        kill_pid(self.pid(number)?)
    }

    pub fn stop(&self, number: usize) -> Result<()> {
        self.command(&["stop", "--only", &number.to_string()]).map(drop)
    }

    /// Starts one again.
    pub fn start_one(&self, number: usize) -> Result<()> {
        self.command(&["start", "--only", &number.to_string()]).map(drop)
    }

    /// The identity in a provider's address.
    pub fn peer(&self, number: usize) -> Result<String> {
        let address = self.addresses.get(number - 1).context("no such provider")?;
        Ok(address.rsplit_once("/p2p/").context("an address without identity")?.1.to_owned())
    }
}

/// A provider that is a process of the tests (a hostile one), started by hand.
#[derive(Debug)]
pub struct ProviderHandle {
    pub process: Process,
    pub address: String,
}

impl ProviderHandle {
    /// Starts a program that prints its full address on a line of its own, indented or not.
    pub fn start(ctx: &Context, command: &mut Command, log: &Path) -> Result<ProviderHandle> {
        let mut process = Process::start(command, log, &ctx.registry)?;
        let mut address = None;
        super::wait_until("the provider's address", LIMIT, || {
            anyhow::ensure!(process.running(), "it ended: {}", process.output());
            address = process
                .output()
                .lines()
                .map(str::trim)
                .find(|line| line.starts_with('/') && line.contains("/p2p/"))
                .map(str::to_owned);
            Ok(address.is_some())
        })?;
        Ok(ProviderHandle { process, address: address.context("no address")? })
    }
}
