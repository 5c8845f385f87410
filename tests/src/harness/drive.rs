//! One drive on one machine: its home folder, its mountpoint, and the commands that a person would give.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::process::{end_process, kill_pid, run, run_ok, tail};
use super::{Context, Finished, wait_until};

/// Commands that do no long work.
const SHORT: Duration = Duration::from_secs(60);
/// What the product promises for a mount, times a reserve for a busy machine; tests that check the promise measure it.
const MOUNT_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct InitOptions {
    /// Survive the loss of so many providers.
    pub survive: u8,
    pub providers: Vec<String>,
    /// Changes to the home's `config`, merged before the first mount: `{"limits": {"audit_interval_seconds": 5}}`.
    pub config: Value,
}

impl Default for InitOptions {
    fn default() -> InitOptions {
        InitOptions { survive: 2, providers: Vec::new(), config: Value::Null }
    }
}

/// From where a drive comes back.
#[derive(Clone, Debug)]
pub struct RestoreFrom<'a> {
    pub secrets: &'a Path,
    pub peers: &'a [String],
    pub config: Value,
}

#[derive(Clone, Debug)]
pub struct Drive {
    ctx: Context,
    pub home: PathBuf,
    pub mountpoint: PathBuf,
    /// Words and passphrase, outside of the home.
    pub secrets: PathBuf,
    pub mount_options: Vec<String>,
    /// Further words of `mount`.
    pub mount_words: Vec<String>,
}

impl Drive {
    fn at(ctx: &Context, name: &str, home: PathBuf) -> Drive {
        Drive {
            ctx: ctx.clone(),
            home,
            mountpoint: ctx.dir.join(format!("{name}.mount")),
            secrets: ctx.dir.join(format!("{name}.secrets")),
            mount_options: Vec::new(),
            mount_words: Vec::new(),
        }
    }

    /// A drive whose home is there already; `secrets` holds its passphrase.
    pub fn existing(ctx: &Context, name: &str, home: PathBuf, secrets: PathBuf) -> Drive {
        Drive { secrets, ..Drive::at(ctx, name, home) }
    }

    /// A new drive with its home at DIR/NAME.home.
    pub fn init(ctx: &Context, name: &str, options: &InitOptions) -> Result<Drive> {
        Drive::init_at(ctx, name, ctx.dir.join(format!("{name}.home")), options)
    }

    pub fn init_at(ctx: &Context, name: &str, home: PathBuf, options: &InitOptions) -> Result<Drive> {
        let drive = Drive::at(ctx, name, home);
        let mut command = drive.command("init")?;
        command.arg("--secrets").arg(&drive.secrets).arg("--survive").arg(options.survive.to_string());
        for provider in &options.providers {
            command.arg("--provider").arg(provider);
        }
        run_ok(&mut command, SHORT)?;
        drive.merge_config(&options.config)?;
        Ok(drive)
    }

    /// An empty machine on which the drive is restored; returns when it is mounted.
    pub fn restore(ctx: &Context, name: &str, from: &RestoreFrom) -> Result<(Drive, Duration)> {
        let mut drive = Drive::at(ctx, name, ctx.dir.join(format!("{name}.home")));
        drive.secrets = from.secrets.to_owned();
        let mut command = drive.command("restore")?;
        for peer in from.peers {
            command.arg("--peer").arg(peer);
        }
        command.arg("--words-file").arg(from.secrets).arg("--passphrase-file").arg(from.secrets);
        if from.config.is_null() {
            drive.expect_mount()?;
            let done = run_ok(command.arg("--background").arg(&drive.mountpoint), MOUNT_LIMIT)?;
            return Ok((drive, done.took));
        }
        // A changed configuration takes effect at the mount, so that comes apart.
        let done = run_ok(command.arg("--no-mount"), MOUNT_LIMIT)?;
        drive.merge_config(&from.config)?;
        let mounted = drive.mount()?;
        Ok((drive, done.took + mounted))
    }

    fn command(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(self.ctx.bin("holdfast")?);
        command.arg("--home").arg(&self.home).arg(name).env("RUST_BACKTRACE", "1");
        Ok(command)
    }

    fn merge_config(&self, changes: &Value) -> Result<()> {
        if changes.is_null() {
            return Ok(());
        }
        let path = self.home.join("config");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        merge(&mut config, changes);
        std::fs::write(path, serde_json::to_vec_pretty(&config)?)?;
        Ok(())
    }

    fn expect_mount(&self) -> Result<()> {
        self.ctx.registry.pidfile(&self.home.join("daemon.pid"))?;
        self.ctx.registry.mount(&self.mountpoint)
    }

    /// Mounts it in the background; returns how long that took.
    pub fn mount(&self) -> Result<Duration> {
        self.expect_mount()?;
        let mut command = self.command("mount")?;
        command.arg(&self.mountpoint).arg("--background").arg("--passphrase-file").arg(&self.secrets);
        for option in &self.mount_options {
            command.arg("-o").arg(option);
        }
        command.args(&self.mount_words);
        match run_ok(&mut command, MOUNT_LIMIT) {
            Ok(done) => Ok(done.took),
            Err(error) => Err(error.context(self.daemon_log())),
        }
    }

    pub fn daemon_log(&self) -> String {
        format!("the end of daemon.log:\n{}", tail(&self.daemon_log_text()))
    }

    /// All that the daemon has said.
    pub fn daemon_log_text(&self) -> String {
        std::fs::read_to_string(self.home.join("daemon.log")).unwrap_or_default()
    }

    pub fn pid(&self) -> Result<u32> {
        let text = std::fs::read_to_string(self.home.join("daemon.pid")).context("daemon.pid")?;
        Ok(text.split_whitespace().next().context("daemon.pid is empty")?.parse()?)
    }

    pub fn unmount(&self) -> Result<Finished> {
        run_ok(self.command("unmount")?.arg("--json"), Duration::from_secs(120))
    }

    pub fn sync_wait(&self, limit: Duration) -> Result<Duration> {
        let mut command = self.command("sync")?;
        command.args(["--wait", "--json", "--timeout", &limit.as_secs().to_string()]);
        match run_ok(&mut command, limit + SHORT) {
            Ok(done) => Ok(done.took),
            Err(error) => Err(error.context(format!("{}\n{}", self.status_text(), self.daemon_log()))),
        }
    }

    pub fn status(&self) -> Result<Value> {
        let done = run_ok(self.command("status")?.arg("--json"), SHORT)?;
        serde_json::from_str(&done.stdout).with_context(|| format!("not JSON: {}", tail(&done.stdout)))
    }

    /// As a person sees it.
    pub fn status_text(&self) -> String {
        match self.command("status").and_then(|mut command| run(&mut command, SHORT)) {
            Ok(done) => format!("{}{}", done.stdout, done.stderr),
            Err(error) => format!("no status: {error:#}"),
        }
    }

    /// The checker over all tables; `deep` reads every local block. The drive may be mounted or not.
    pub fn verify(&self, deep: bool) -> Result<Value> {
        let mut command = self.command("verify")?;
        command.arg("--json").arg("--passphrase-file").arg(&self.secrets);
        if deep {
            command.arg("--deep");
        }
        let done = run(&mut command, Duration::from_secs(300))?;
        let report: Value = serde_json::from_str(&done.stdout)
            .with_context(|| format!("verify: {}{}", tail(&done.stdout), tail(&done.stderr)))?;
        if report["ok"] != Value::Bool(true) {
            bail!("verify found damage: {report:#}");
        }
        Ok(report)
    }

    pub fn command_with(&self, words: &[&str]) -> Result<Finished> {
        let (name, rest) = words.split_first().context("no command")?;
        run(self.command(name)?.args(rest), SHORT)
    }

    /// kill -9 of the daemon; the dead mount is taken away.
    pub fn kill(&self) -> Result<()> {
        kill_pid(self.pid()?)?;
        self.drop_mount()
    }

    /// As a shutdown ends it.
    pub fn terminate(&self) -> Result<()> {
        end_process(self.pid()?, Signal::SIGTERM, Duration::from_secs(60))
    }

    /// After the daemon's death: the mountpoint answers ENOTCONN until it is unmounted.
    pub fn drop_mount(&self) -> Result<()> {
        let start = Instant::now();
        while is_mountpoint(&self.mountpoint)? {
            let _ = nix::mount::umount2(&self.mountpoint, nix::mount::MntFlags::MNT_DETACH);
            if !nix::unistd::geteuid().is_root() {
                let _ = Command::new("fusermount3").arg("-uz").arg(&self.mountpoint).output();
            }
            if start.elapsed() > SHORT {
                bail!("{} cannot be unmounted", self.mountpoint.display());
            }
        }
        Ok(())
    }

    /// Waits until status says that every piece has all its copies.
    pub fn wait_full(&self, limit: Duration) -> Result<Duration> {
        wait_until("all pieces having all copies", limit, || {
            let pieces = &self.status()?["pieces"];
            Ok(pieces["degraded"] == 0 && pieces["lost"] == 0 && pieces["full"] == pieces["total"])
        })
        .with_context(|| format!("{}\n{}", self.status_text(), self.daemon_log()))
    }

    pub fn durability(&self, path: &Path) -> Result<String> {
        let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
        let mut buffer = [0u8; 256];
        // SAFETY: both names end with a zero, the buffer is valid for its length.
        let size = unsafe {
            libc::getxattr(
                name.as_ptr(),
                c"user.holdfast.durability".as_ptr(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
            )
        };
        if size < 0 {
            return Err(std::io::Error::last_os_error()).context("user.holdfast.durability");
        }
        Ok(String::from_utf8_lossy(&buffer[..size as usize]).into_owned())
    }
}

fn merge(into: &mut Value, changes: &Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (key, value) in changes {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, changes) => *into = changes.clone(),
    }
}

pub fn is_mountpoint(path: &Path) -> Result<bool> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == path)))
}
