//! How a test commands the disk: one line in, one line back, over a Unix socket.
//!
//! ```text
//! freeze       the power goes: from now on every change fails with EIO       ok
//! cut SEED     unmounts, drops what was not synced, mounts again             ok pages_dropped=.. pages_torn=.. ..
//! sync         makes everything durable                                      ok
//! stats        what is not durable yet                                       ok dirty_pages=.. pending_changes=.. fsyncs=..
//! quit         unmounts and ends                                             ok
//! ```
//!
//! A line that starts with `error` is a failure. All programs that use the mount must have ended before `cut`.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::disk::Disk;
use super::fuse::{MountedDisk, mount};

/// A killed program's files are closed a little after it is gone.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(20);
/// No answer takes longer than an unmount.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// Mounts the disk and obeys until `quit`.
pub fn serve(disk: Arc<Mutex<Disk>>, mountpoint: &Path, socket: &Path) -> io::Result<()> {
    let mut mounted = Some(mount(disk.clone(), mountpoint)?);
    if let Err(error) = std::fs::remove_file(socket)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = UnixListener::bind(socket)?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        let mut line = String::new();
        BufReader::new(stream.try_clone()?).read_line(&mut line)?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer =
            obey(&words, &disk, mountpoint, &mut mounted).unwrap_or_else(|error| format!("error {error}"));
        // A client that hung up does not end the disk.
        let _ = writeln!(stream, "{answer}");
        if words == ["quit"] && mounted.is_none() {
            return std::fs::remove_file(socket);
        }
    }
    Ok(())
}

fn obey(
    words: &[&str],
    disk: &Arc<Mutex<Disk>>,
    mountpoint: &Path,
    mounted: &mut Option<MountedDisk>,
) -> io::Result<String> {
    match words {
        ["freeze"] => disk.lock().frozen = true,
        ["sync"] => disk.lock().sync_all(),
        ["stats"] => {
            let disk = disk.lock();
            let (pages, changes) = (disk.dirty_pages(), disk.pending_changes());
            return Ok(format!("ok dirty_pages={pages} pending_changes={changes} fsyncs={}", disk.fsyncs));
        }
        ["cut", seed] => {
            let seed = seed.parse().map_err(io::Error::other)?;
            disk.lock().frozen = true;
            unmount(mountpoint, mounted)?;
            let report = disk.lock().cut(seed);
            *mounted = Some(mount(disk.clone(), mountpoint)?);
            return Ok(format!(
                "ok pages_dropped={} pages_torn={} changes_dropped={} changes_kept={} files_lost={}",
                report.pages_dropped,
                report.pages_torn,
                report.changes_dropped,
                report.changes_kept,
                report.files_lost
            ));
        }
        ["quit"] => unmount(mountpoint, mounted)?,
        _ => return Err(io::Error::other(format!("unknown command {words:?}"))),
    }
    Ok("ok".into())
}

fn unmount(mountpoint: &Path, mounted: &mut Option<MountedDisk>) -> io::Result<()> {
    let start = Instant::now();
    while let Err(error) = nix::mount::umount(mountpoint).or_else(|_| fusermount(mountpoint)) {
        if start.elapsed() > UNMOUNT_PATIENCE {
            return Err(io::Error::other(format!("{}: {error}", mountpoint.display())));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    match mounted.take() {
        Some(session) => session.join(),
        None => Ok(()),
    }
}

/// The way to unmount for who is not root.
fn fusermount(mountpoint: &Path) -> io::Result<()> {
    let status = std::process::Command::new("fusermount3").arg("-u").arg(mountpoint).output()?;
    if status.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&status.stderr).trim().to_owned()))
}

/// The test's side.
#[derive(Clone, Debug)]
pub struct Client {
    pub socket: PathBuf,
}

impl Client {
    pub fn send(&self, command: &str) -> io::Result<String> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
        writeln!(stream, "{command}")?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        match answer.trim() {
            answer if answer.starts_with("ok") => Ok(answer.trim_start_matches("ok").trim().to_owned()),
            answer => Err(io::Error::other(format!("powercut {command}: {answer}"))),
        }
    }
}
