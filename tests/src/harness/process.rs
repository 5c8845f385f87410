//! Starting programs, waiting for them with a limit, ending exactly them.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Of a failed command's output, this much is shown.
const TOLD_BYTES_MAX: usize = 4000;

/// What a test started, on disk, so that it can be ended by another process.
///
/// ```text
/// pid PID START      a process; START is field 22 of /proc/PID/stat, so that a reused number is not hit
/// pidfile PATH       a file that begins with such a pair
/// mount PATH         a mountpoint
/// ```
#[derive(Clone, Debug)]
pub struct Registry {
    path: PathBuf,
}

impl Registry {
    pub fn new(dir: &Path) -> Registry {
        Registry { path: dir.join("started") }
    }

    fn add(&self, line: &str) -> Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        writeln!(file, "{line}")?;
        Ok(())
    }

    pub fn pid(&self, pid: u32) -> Result<()> {
        self.add(&format!("pid {pid} {}", start_time(pid).unwrap_or(0)))
    }

    pub fn pidfile(&self, path: &Path) -> Result<()> {
        self.add(&format!("pidfile {}", path.display()))
    }

    pub fn mount(&self, path: &Path) -> Result<()> {
        self.add(&format!("mount {}", path.display()))
    }
}

/// Ends and unmounts all that a test started and left behind; the newest first.
pub fn clean_up(dir: &Path) {
    let Ok(text) = std::fs::read_to_string(dir.join("started")) else { return };
    let mounts: Vec<&str> = text.lines().rev().filter_map(|line| line.strip_prefix("mount ")).collect();
    // A request that nobody answers holds whoever asked: the kernel lets go of it when the connection is aborted.
    for mount in &mounts {
        abort_fuse(Path::new(mount));
    }
    for line in text.lines().rev() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["pid", pid, start] => end_if_same(pid, start),
            ["pidfile", path] => {
                let record = std::fs::read_to_string(path).unwrap_or_default();
                if let [pid, start, ..] = record.split_whitespace().collect::<Vec<_>>().as_slice() {
                    end_if_same(pid, start);
                }
            }
            _ => {}
        }
    }
    for mount in mounts {
        let _ = nix::mount::umount2(Path::new(mount), nix::mount::MntFlags::MNT_DETACH);
        let _ = Command::new("fusermount3").args(["-u", "-z", mount]).output();
    }
}

fn end_if_same(pid: &str, start: &str) {
    if let (Ok(pid), Ok(start)) = (pid.parse::<u32>(), start.parse::<u64>())
        && start_time(pid) == Some(start)
    {
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
    }
}

/// Writes 1 to the abort file of the connection of a FUSE mount (root only; elsewhere it does nothing).
fn abort_fuse(mountpoint: &Path) {
    let Ok(table) = std::fs::read_to_string("/proc/self/mountinfo") else { return };
    for line in table.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let is_fuse = line.split(" - ").nth(1).is_some_and(|rest| rest.starts_with("fuse"));
        if let (true, Some(device), Some(at)) = (is_fuse, words.get(2), words.get(4))
            && Path::new(at) == mountpoint
            && let Some((_, minor)) = device.split_once(':')
        {
            let _ = std::fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), "1");
        }
    }
}

/// Field 22 of /proc/PID/stat: clock ticks from the boot to the start of the process.
pub fn start_time(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field may hold anything, blanks and brackets included, up to the last closing bracket.
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Whether the process runs (one that has ended and was not waited for does not, once all its threads have: until then its files and locks are open).
pub fn runs(pid: u32) -> bool {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let ended = text.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
    !ended || std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1)
}

/// kill -9, and waits until the process is gone.
pub fn kill_pid(pid: u32) -> Result<()> {
    end_process(pid, Signal::SIGKILL, Duration::from_secs(20))
}

pub fn end_process(pid: u32, signal: Signal, limit: Duration) -> Result<()> {
    kill(Pid::from_raw(pid as i32), signal).with_context(|| format!("signal to {pid}"))?;
    let start = Instant::now();
    while runs(pid) {
        if start.elapsed() > limit {
            bail!("process {pid} still runs {} s after {signal}", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A command that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

/// Runs a command to its end, at most `limit` long. Its output goes through files, so that a background process that
/// inherits it does not keep us waiting.
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(err.try_clone()?)
        .spawn()
        .with_context(|| format!("cannot start {}", describe(command)))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > limit {
            let _ = child.kill();
            let told = text_of(&mut err)?;
            bail!("{}: not done within {} s\n{}", describe(command), limit.as_secs(), tail(&told));
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    Ok(Finished { status, stdout: text_of(&mut out)?, stderr: text_of(&mut err)?, took: start.elapsed() })
}

/// The same, where anything but exit code 0 is an error.
pub fn run_ok(command: &mut Command, limit: Duration) -> Result<Finished> {
    let done = run(command, limit)?;
    if !done.status.success() {
        bail!("{}: {}\n{}{}", describe(command), done.status, tail(&done.stdout), tail(&done.stderr));
    }
    Ok(done)
}

fn describe(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn text_of(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub fn tail(text: &str) -> &str {
    let mut at = text.len().saturating_sub(TOLD_BYTES_MAX);
    while !text.is_char_boundary(at) {
        at += 1;
    }
    &text[at..]
}

/// A program that stays; ended when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pub log: PathBuf,
}

impl Process {
    /// Output goes to `log`.
    pub fn start(command: &mut Command, log: &Path, registry: &Registry) -> Result<Process> {
        let file = OpenOptions::new().append(true).create(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", describe(command)))?;
        registry.pid(child.id())?;
        Ok(Process { child, log: log.to_owned() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
