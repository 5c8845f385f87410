//! The product as a person has it: the `holdfast` program, providers as processes, drives mounted on folders.
//!
//! Owns: a test's folder and what was started in it (`Context`), running a command with a time limit (`run`), drives
//! (`Drive`), local networks of providers (`Network`), several machines and NATs (`Internet`), the power-cut disk as a process (`PowerDisk`), byte counting.
//!
//! Promises: everything started is written down in the test's folder before it is used, so that the runner can end it
//! (by its id and start time) however the test ends. No wait is without a limit.

mod drive;
mod hosts;
mod line;
mod network;
mod power;
mod process;
pub mod wire;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

pub use drive::{Drive, InitOptions, RestoreFrom};
pub use hosts::{Behind, Host, Internet};
pub use network::{Network, ProviderHandle};
pub use power::PowerDisk;
pub use process::{Finished, Process, Registry, clean_up, end_process, kill_pid, run, run_ok};

/// What one test has.
#[derive(Clone, Debug)]
pub struct Context {
    /// Its own empty folder.
    pub dir: PathBuf,
    /// Longer, larger.
    pub full: bool,
    pub registry: Registry,
    /// Where `holdfast` and the tests' own programs lie.
    bins: PathBuf,
    started: Instant,
}

impl Context {
    pub fn new(dir: &Path, full: bool) -> Result<Context> {
        std::fs::create_dir_all(dir)?;
        let dir = dir.canonicalize()?;
        // target/release/deps/e2e-… or target/release/bench
        let mut bins = std::env::current_exe()?;
        bins.pop();
        if bins.ends_with("deps") {
            bins.pop();
        }
        let registry = Registry::new(&dir);
        Ok(Context { dir, full, registry, bins, started: Instant::now() })
    }

    /// A program of this workspace.
    pub fn bin(&self, name: &str) -> Result<PathBuf> {
        let path = self.bins.join(name);
        if !path.exists() {
            bail!("{} is missing: build it with `cargo build --release --workspace --bins`", path.display());
        }
        Ok(path)
    }

    /// One line of the test's story, with the time.
    pub fn note(&self, text: impl AsRef<str>) {
        let mut out = std::io::stdout().lock();
        // A closed output does not fail a test.
        let _ = writeln!(out, "    {:6.1} s  {}", self.started.elapsed().as_secs_f64(), text.as_ref());
        let _ = out.flush();
    }

    /// A new folder in the test's own.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }
}

/// Asks again and again until the answer is yes; an error of the question ends it.
pub fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let start = Instant::now();
    loop {
        if done().with_context(|| format!("while waiting for {what}"))? {
            return Ok(start.elapsed());
        }
        if start.elapsed() > limit {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
