//! Daemons in the background: this program again, in a session of its own, that tells its parent when it is ready.
//!
//! ```text
//!   parent                                    child (same program, --ready-fd 3)
//!   pipe, spawn, passphrase into its stdin -> reads it
//!   waits for one line on the pipe         <- {"ready":{...}} or {"failure":{...}}, or the end of the pipe: it died
//! ```

use std::{
    ffi::OsString,
    fs::File,
    io::{BufRead, BufReader, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{Exit, Failure, log};
use crate::home::Passphrase;

/// The descriptor under which the child finds the pipe.
pub const READY_FD: RawFd = 3;
/// Lines of the log that are shown when a child dies without a word.
const LOG_LINES_SHOWN: usize = 5;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    Ready(serde_json::Value),
    Failure { exit: i32, message: String, hint: Option<String> },
}

/// The child's end, if there is a parent that waits. Shared by whoever may be first to know how it went; only the first
/// word counts.
#[derive(Clone, Debug, Default)]
pub struct ReadyPipe(Arc<Mutex<Option<File>>>);

impl ReadyPipe {
    /// Takes over the descriptor that the parent left, if it left one.
    pub fn adopt(fd: Option<RawFd>) -> Result<ReadyPipe, Failure> {
        let Some(fd) = fd else { return Ok(ReadyPipe::default()) };
        let not_ours = || Failure::new(Exit::Usage, "--ready-fd is for holdfast's own use");
        // SAFETY: asks the kernel whether the number is an open descriptor.
        if fd < READY_FD || unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
            return Err(not_ours());
        }
        // SAFETY: it is open, the parent made it for us, and nothing else in this process knows of it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|_| not_ours())?;
        Ok(ReadyPipe(Arc::new(Mutex::new(Some(File::from(fd))))))
    }

    pub fn has_parent(&self) -> bool {
        self.0.lock().is_some()
    }

    pub fn ready(&self, value: serde_json::Value) {
        self.send(&Message::Ready(value));
    }

    pub fn failed(&self, failure: &Failure) {
        self.send(&Message::Failure {
            exit: failure.exit.code(),
            message: failure.message.clone(),
            hint: failure.hint.clone(),
        });
    }

    fn send(&self, message: &Message) {
        if let (Some(mut pipe), Ok(mut line)) = (self.0.lock().take(), serde_json::to_vec(message)) {
            line.push(b'\n');
            // A parent that was killed does not read; the daemon goes on all the same.
            let _ = pipe.write_all(&line);
        }
    }
}

/// Starts the program with these arguments and returns what it says when it is ready.
pub fn start(
    program: &Path,
    arguments: &[OsString],
    passphrase: Option<&Passphrase>,
    log_path: &Path,
) -> Result<serde_json::Value, Failure> {
    let log_file = log::open(log_path)?;
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(Failure::internal)?;
    let output = || log_file.try_clone().map(Stdio::from).map_err(Failure::internal);
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir("/")
        .stdin(if passphrase.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(output()?)
        .stderr(output()?);
    let fd = write.as_raw_fd();
    // SAFETY: only async-signal-safe calls: setsid, dup2, fcntl.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            if fd == READY_FD {
                // dup2 onto itself would keep close-on-exec.
                return if libc::fcntl(fd, libc::F_SETFD, 0) == -1 {
                    Err(std::io::Error::last_os_error())
                } else {
                    Ok(())
                };
            }
            if libc::dup2(fd, READY_FD) == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        });
    }
    let mut child =
        command.spawn().map_err(|e| Failure::internal(format!("cannot start {}: {e}", program.display())))?;
    drop(write);
    if let (Some(passphrase), Some(mut stdin)) = (passphrase, child.stdin.take()) {
        // A child that ended early says why on the pipe.
        let _ = stdin.write_all(passphrase.expose().as_bytes()).and_then(|()| stdin.write_all(b"\n"));
    }
    let mut line = String::new();
    BufReader::new(File::from(read)).read_line(&mut line).map_err(Failure::internal)?;
    match serde_json::from_str(&line) {
        Ok(Message::Ready(value)) => Ok(value),
        Ok(Message::Failure { exit, message, hint }) => {
            let _ = child.wait();
            let failure = Failure::new(Exit::from_code(exit), message);
            Err(match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            })
        }
        Err(_) => {
            let _ = child.kill();
            let ended = child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
            Err(Failure::new(
                Exit::Failed,
                format!("the background process ended before it was ready ({ended})"),
            )
            .hint(format!("Its log is {}:{}", log_path.display(), tail(log_path))))
        }
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines.iter().skip(lines.len().saturating_sub(LOG_LINES_SHOWN));
    shown.fold(String::new(), |out, line| out + "\n  | " + line)
}
